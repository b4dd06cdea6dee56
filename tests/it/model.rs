//! Random operations on the registry and a mount, against a plain model in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;

use crate::world::{World, until};

type Tree = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Clone)]
enum Step {
    /// A write to a file of the source.
    Write(u8, u8),
    /// A removal of a file of the source.
    Remove(u8),
    /// A put of the source, with an alias.
    Put(u8),
    /// A copy of the source to a draft, which is then renamed to an alias.
    Stage(u8),
    /// A move of an alias to a version.
    Alias(u8, u8),
    /// A removal of an alias.
    Unalias(u8),
    /// A deletion of a version.
    Delete(u8),
    /// A deletion of all versions without an alias.
    Prune,
}

#[derive(Default)]
struct Model {
    source: Tree,
    versions: BTreeMap<u64, Tree>,
    aliases: BTreeMap<String, u64>,
    next: u64,
}

impl Model {
    fn commit(&mut self, alias: &str) {
        let newest = self.versions.last_key_value();
        let number = match newest {
            Some((number, tree)) if *tree == self.source => *number,
            _ => {
                self.versions.insert(self.next, self.source.clone());
                self.next += 1;
                self.next - 1
            }
        };
        for name in ["latest", alias] {
            self.aliases.insert(name.to_owned(), number);
        }
    }

    fn nth(&self, index: u8) -> Option<u64> {
        let count = self.versions.len();
        (count > 0).then(|| *self.versions.keys().nth(usize::from(index) % count).unwrap())
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..9, 0u8..5).prop_map(|(name, seed)| Step::Write(name, seed)),
        2 => (0u8..9).prop_map(Step::Remove),
        4 => (0u8..3).prop_map(Step::Put),
        2 => (0u8..3).prop_map(Step::Stage),
        2 => (any::<u8>(), 0u8..3).prop_map(|(version, alias)| Step::Alias(version, alias)),
        1 => (0u8..3).prop_map(Step::Unalias),
        2 => any::<u8>().prop_map(Step::Delete),
        1 => Just(Step::Prune),
    ];
    prop::collection::vec(step, 5..40)
}

fn name_of(file: u8) -> String {
    if file.is_multiple_of(2) { format!("f{file}") } else { format!("d{}/f{file}", file % 4) }
}

fn step(world: &World, staging: &Path, model: &mut Model, step: &Step) {
    let source = world.path("source");
    let alias = |n: u8| format!("alias{n}");
    match step {
        Step::Write(file, seed) => {
            let path = source.join(name_of(*file));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let bytes = vec![*seed; usize::from(*seed) * 50_000];
            fs::write(path, &bytes).unwrap();
            model.source.insert(name_of(*file), bytes);
        }
        Step::Remove(file) => {
            if model.source.remove(&name_of(*file)).is_some() {
                fs::remove_file(source.join(name_of(*file))).unwrap();
            }
            // Only directories with files stay, so that the model need not record directories.
            for folder in fs::read_dir(&source).unwrap() {
                let _ = fs::remove_dir(folder.unwrap().path());
            }
        }
        Step::Put(name) => {
            world.ok(&["put", "-n", "p/a", "-a", &alias(*name), source.to_str().unwrap()]);
            model.commit(&alias(*name));
        }
        Step::Stage(name) => {
            let _ = fs::create_dir(staging.join("p"));
            crate::world::host("cp", &[Path::new("-r"), &source, &staging.join("p/a")]);
            fs::rename(staging.join("p/a"), staging.join(format!("p/a:{}", alias(*name)))).unwrap();
            model.commit(&alias(*name));
        }
        Step::Alias(version, name) => {
            if let Some(number) = model.nth(*version) {
                world.ok(&["alias", "add", &format!("p/a:v{number}"), &alias(*name)]);
                model.aliases.insert(alias(*name), number);
            }
        }
        Step::Unalias(name) => {
            if let Some(number) = model.aliases.remove(&alias(*name)) {
                world.ok(&["alias", "rm", &format!("p/a:v{number}"), &alias(*name)]);
            }
        }
        Step::Delete(version) => {
            if let Some(number) = model.nth(*version) {
                world.ok(&["delete", &format!("p/a:v{number}"), "--delete-aliases"]);
                model.versions.remove(&number);
                model.aliases.retain(|_, target| *target != number);
            }
        }
        Step::Prune => {
            if model.next > 0 {
                world.ok(&["prune", "p"]);
                let kept: Vec<u64> = model.aliases.values().copied().collect();
                model.versions.retain(|number, _| kept.contains(number));
            }
        }
    }
}

fn read_tree(root: &Path, below: &str, tree: &mut Tree) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if entry.file_type()?.is_dir() {
            read_tree(root, &path, tree)?;
        } else {
            tree.insert(path.clone(), fs::read(root.join(&path))?);
        }
    }
    Ok(())
}

/// Reads all versions through the mount.
fn shown(read: &Path) -> std::io::Result<BTreeMap<String, Tree>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(read.join("p"))? {
        let name = entry?.file_name().into_string().unwrap();
        let mut tree = Tree::new();
        read_tree(&read.join("p").join(&name), "", &mut tree)?;
        all.insert(name, tree);
    }
    Ok(all)
}

fn expected(model: &Model) -> BTreeMap<String, Tree> {
    let versions = model.versions.iter().map(|(n, tree)| (format!("a:v{n}"), tree.clone()));
    let aliases = model.aliases.iter();
    let aliases = aliases.map(|(name, n)| (format!("a:{name}"), model.versions[n].clone()));
    versions.chain(aliases).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 20, ..ProptestConfig::default() })]
    #[test]
    fn the_mount_shows_what_the_model_says(steps in steps()) {
        let mut world = World::new();
        let (read, staging) = world.mount();
        fs::create_dir(world.path("source")).unwrap();
        let mut model = Model::default();
        for one in &steps {
            step(&world, &staging, &mut model, one);
            if model.next > 0 {
                let wanted = expected(&model);
                until("the mount shows it", || shown(&read).is_ok_and(|found| found == wanted));
            }
        }
        world.umount();
        world.sound();
    }
}
