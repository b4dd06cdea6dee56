//! Finds circles of files within a room: two files that know each other, be it by way of others.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{Visit, visit_item_use, visit_path};

/// The path of a module from the crate's root; that of a folder is its `mod.rs`.
type Module = Vec<String>;

/// The paths that a file names, as they are written, and whether each is handed on (`pub use`).
#[derive(Default)]
struct Names(Vec<(Vec<String>, bool)>);

impl Names {
    fn of(text: &str) -> Self {
        let mut names = Self::default();
        names.visit_file(&syn::parse_file(text).unwrap());
        names
    }

    fn expand(&mut self, tree: &syn::UseTree, mut before: Vec<String>, public: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.expand(&path.tree, before, public);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.expand(tree, before.clone(), public));
            }
            syn::UseTree::Name(name) => {
                if name.ident != "self" {
                    before.push(name.ident.to_string());
                }
                self.0.push((before, public));
            }
            syn::UseTree::Rename(name) => {
                before.push(name.ident.to_string());
                self.0.push((before, public));
            }
            syn::UseTree::Glob(_) => self.0.push((before, public)),
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    /// Modules within a file are its tests, or hand on what is named elsewhere.
    fn visit_item_mod(&mut self, _module: &'ast syn::ItemMod) {}

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let public = !matches!(item.vis, syn::Visibility::Inherited);
        self.expand(&item.tree, Vec::new(), public);
        visit_item_use(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if parts.len() > 1 && ["crate", "super", "self"].contains(&parts[0].as_str()) {
            self.0.push((parts, false));
        }
        visit_path(self, path);
    }
}

/// The files of a crate, and what each names.
struct Crate {
    names: BTreeMap<Module, Names>,
    /// A re-export: a name, and the path it stands for.
    handed_on: BTreeMap<Module, BTreeMap<String, Module>>,
}

impl Crate {
    fn of(files: &[(String, String)]) -> Self {
        let names = files.iter().map(|(path, text)| (module_of(path), Names::of(text)));
        let mut known = Self { names: names.collect(), handed_on: BTreeMap::new() };
        let mut handed_on: BTreeMap<Module, BTreeMap<String, Module>> = BTreeMap::new();
        for (module, names) in &known.names {
            for (path, _) in names.0.iter().filter(|(_, public)| *public) {
                if let (Some(stands_for), Some(name)) = (known.absolute(module, path), path.last())
                {
                    handed_on.entry(module.clone()).or_default().insert(name.clone(), stands_for);
                }
            }
        }
        known.handed_on = handed_on;
        known
    }

    /// Returns a path from the crate's root, or `None` if it begins in another crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let ups = path.iter().take_while(|part| *part == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "super" => {
                let above = &module[..module.len().checked_sub(ups)?];
                Some([above, &path[ups..]].concat())
            }
            "self" => Some([module, &path[1..]].concat()),
            child => {
                let file = [module.as_slice(), &[child.to_owned()]].concat();
                self.names.contains_key(&file).then(|| [module, path].concat())
            }
        }
    }

    /// Returns the file that defines the item at a path.
    fn file_of(&self, path: &[String]) -> Option<Module> {
        let (file, rest) = (1..=path.len()).rev().find_map(|length| {
            let (file, rest) = path.split_at(length);
            self.names.contains_key(file).then(|| (file.to_vec(), rest))
        })?;
        let handed_on = self.handed_on.get(&file).zip(rest.first());
        match handed_on.and_then(|(names, name)| names.get(name)) {
            Some(stands_for) if stands_for != path => self.file_of(stands_for),
            _ => Some(file),
        }
    }

    /// Returns the files of the same room that each file knows.
    fn edges(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let edges = self.names.iter().map(|(module, names)| {
            let known = names.0.iter().filter_map(|(path, public)| {
                let path = self.absolute(module, path)?;
                // Where a folder's parts are handed on, nothing is used.
                let hands_on = *public && path.starts_with(module);
                let file = self.file_of(&path).filter(|_| !hands_on)?;
                (file != *module && file.first() == module.first()).then_some(file)
            });
            (module.clone(), known.collect())
        });
        edges.collect()
    }
}

fn module_of(path: &str) -> Module {
    let below = path.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
    below.split('/').filter(|part| *part != "mod").map(ToOwned::to_owned).collect()
}

/// Returns a circle, if there is one.
fn circle(edges: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    let mut left = edges.clone();
    loop {
        let ends = |known: &BTreeSet<Module>| known.iter().all(|file| !left.contains_key(file));
        let free: Vec<_> =
            left.iter().filter(|(_, known)| ends(known)).map(|(file, _)| file.clone()).collect();
        if free.is_empty() {
            break;
        }
        free.iter().for_each(|file| drop(left.remove(file)));
    }
    // Whatever is left knows something that is left.
    let mut way = vec![left.keys().next()?.clone()];
    loop {
        let next = left[way.last()?].iter().find(|file| left.contains_key(*file))?;
        if let Some(at) = way.iter().position(|file| file == next) {
            return Some(way[at..].to_vec());
        }
        way.push(next.clone());
    }
}

fn circle_in(files: &[(String, String)]) -> Option<String> {
    let files: Vec<_> = files
        .iter()
        .filter(|(path, _)| !["src/lib.rs", "src/main.rs"].contains(&path.as_str()))
        .cloned()
        .collect();
    let way = circle(&Crate::of(&files).edges())?;
    Some(way.iter().map(|module| module.join("/")).collect::<Vec<_>>().join(" → "))
}

#[test]
fn no_circle_of_files_is_in_a_room() {
    assert_eq!(circle_in(&super::all()), None);
}

#[test]
fn circles_are_found_however_they_are_written() {
    let crate_of = |files: &[(&str, &str)]| -> Vec<(String, String)> {
        files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    };
    let chain = [
        ("src/a/mod.rs", "mod b; mod c; pub use b::B;"),
        ("src/a/b.rs", "use super::c::C; pub struct B(C);"),
        ("src/a/c.rs", "pub struct C;"),
    ];
    assert_eq!(circle_in(&crate_of(&chain)), None);
    let backs = [
        "use super::b::B; pub struct C(B);",
        "use crate::a::B; pub struct C(B);",
        "pub struct C(Box<super::B>);",
        "use super::{b::{self}}; pub struct C(b::B);",
        "fn f() { crate::a::b::g() }",
    ];
    for back in backs {
        let mut files = crate_of(&chain);
        files[2].1 = back.to_owned();
        assert_eq!(circle_in(&files).as_deref(), Some("a/b → a/c"), "{back}");
    }
    let mut files = crate_of(&chain);
    files[2].1 = "#[cfg(test)] mod tests { use super::super::b::B; }".to_owned();
    assert_eq!(circle_in(&files), None);
}
