//! Tables as W&B's library writes them.

mod random;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use artifactfs::model::run::{Resume, RunStart};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use crate::world::{World, ran, write};

/// A table as Python writes it: sorted keys, tokens that JSON lacks, `\u` for all but ASCII.
const PYTHON: &str = r#"
import json
def union(name): return {"wb_type": "union", "params": {"allowed_types": [{"wb_type": "none"}, {"wb_type": name}]}}
columns = ["id", "loss", "label", "good", "box", "image", "empty", "mixed"]
data = [
  [0, 0.5, "k\u00e4se", True, [1, 2, float("nan")], {"_type": "image-file", "path": "media/0.png"}, None, 1],
  [1, float("nan"), "a, \"b\"\nc", False, [], None, None, "one"],
  [2, float("-inf"), "", None, [3], {"_type": "image-file", "path": "media/1.png"}, None, None],
]
types = {"wb_type": "typedDict", "params": {"type_map": {
  "id": union("number"), "loss": union("number"), "label": union("string"), "good": union("boolean"),
  "empty": union("number"), "image": {"wb_type": "union", "params": {"allowed_types": [{"wb_type": "none"}, {"wb_type": "image-file"}]}}}}}
print(json.dumps({"_type": "table", "columns": columns, "data": data, "ncols": len(columns), "nrows": len(data),
  "column_types": types}, sort_keys=True), end="")
"#;

fn python_table() -> Vec<u8> {
    let output = Command::new("python3").args(["-c", PYTHON]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs a command, and returns its stdout, which is not text.
fn raw(world: &World, args: &[&str]) -> Vec<u8> {
    let output = world.command(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn parquet(bytes: Vec<u8>) -> Vec<RecordBatch> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
    builder.build().unwrap().map(Result::unwrap).collect()
}

/// Returns a table of small rows.
fn table(columns: &[&str], rows: std::ops::Range<u64>) -> Vec<u8> {
    let cells = |row: u64| -> Vec<Value> {
        columns.iter().map(|column| json!(format!("{column}{row}"))).collect()
    };
    let data: Vec<_> = rows.map(cells).collect();
    json!({ "_type": "table", "columns": columns, "data": data }).to_string().into_bytes()
}

fn put_tree(world: &World, files: &[(&str, &[u8])]) {
    let source = world.path("src");
    let _ = fs::remove_dir_all(&source);
    let source = world.tree("src", files);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
}

#[test]
fn a_table_from_python_is_shown_in_every_format() {
    let world = World::new();
    put_tree(&world, &[("eval/t.table.json", &python_table())]);
    let path = "p/a:v0/eval/t.table.json";
    let ran = world.run(&["table", "show", path]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let image = |number| format!("{{\"_type\": \"image-file\", \"path\": \"media/{number}.png\"}}");
    let wanted = [
        ["id", "loss", "label", "good", "box", "image", "empty", "mixed"],
        ["0", "0.5", "k\u{e4}se", "true", "[1, 2, \"NaN\"]", &image(0), "-", "1"],
        ["1", "NaN", "a, \"b\"\\nc", "false", "[]", "-", "-", "one"],
        ["2", "-Infinity", "", "-", "[3]", &image(1), "-", "-"],
    ];
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.len(), wanted.len(), "{}", ran.out);
    for (line, [a, b, c, d, e, f, g, h]) in lines.iter().zip(wanted) {
        let aligned = format!("{a:2}  {b:9}  {c:9}  {d:5}  {e:13}  {f:46}  {g:5}  {h}");
        assert_eq!(*line, aligned);
    }
    assert_eq!(ran.err, "3 rows\n");

    let document = world.json(&["table", "show", "p/a/eval/t.table.json"]);
    assert_eq!(document["columns"][7], "mixed");
    assert_eq!(document["data"][0][4], json!([1, 2, "NaN"]));
    assert_eq!(document["data"][1][1], "NaN");
    assert_eq!(document["data"][2][1], "-Infinity");
    assert_eq!(document["data"][2][7], Value::Null);
    let same = world.ok(&["--json", "table", "show", path]);
    assert_eq!(world.ok(&["table", "show", path, "--format", "json"]), same);

    let csv = world.ok(&["table", "show", path, "--format", "csv"]);
    let wanted = "id,loss,label,good,box,image,empty,mixed\n\
        0,0.5,k\u{e4}se,true,\"[1, 2, \"\"NaN\"\"]\",\"{\"\"_type\"\": \"\"image-file\"\", \"\"path\"\": \"\"media/0.png\"\"}\",,1\n\
        1,NaN,\"a, \"\"b\"\"\nc\",false,[],,,one\n\
        2,-Infinity,,,[3],\"{\"\"_type\"\": \"\"image-file\"\", \"\"path\"\": \"\"media/1.png\"\"}\",,\n";
    assert_eq!(csv, wanted);

    let batches = parquet(raw(&world, &["table", "show", path, "--format", "parquet"]));
    let batch = &batches[0];
    let types: Vec<_> = batch.schema().fields().iter().map(|f| f.data_type().clone()).collect();
    use DataType::{Boolean, Float64, Int64, Utf8};
    assert_eq!(types, [Int64, Float64, Utf8, Boolean, Utf8, Utf8, Float64, Utf8]);
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values()[..], [0, 1, 2]);
    let loss = batch.column(1).as_primitive::<Float64Type>();
    assert!(loss.value(0) == 0.5 && loss.value(1).is_nan() && loss.value(2) == f64::NEG_INFINITY);
    let label = batch.column(2).as_string::<i32>();
    assert_eq!((label.value(0), label.value(1)), ("k\u{e4}se", "a, \"b\"\nc"));
    assert!(label.is_valid(2) && label.value(2).is_empty());
    assert!(batch.column(3).is_null(2) && batch.column(6).null_count() == 3);
    assert_eq!(batch.column(4).as_string::<i32>().value(0), "[1, 2, \"NaN\"]");
    let mixed = batch.column(7).as_string::<i32>();
    assert_eq!((mixed.value(0), mixed.value(1), mixed.is_null(2)), ("1", "\"one\"", true));
}

#[test]
fn a_limit_is_kept_and_the_rest_is_reported() {
    let world = World::new();
    put_tree(&world, &[("t.table.json", &table(&["a", "b"], 0..60))]);
    let show = |more: &[&str]| world.run(&[&["table", "show", "p/a/t.table.json"], more].concat());
    let plain = show(&[]);
    assert_eq!(plain.out.lines().count(), 51);
    assert_eq!(plain.err, "50 of 60 rows; --limit shows more\n");
    let all = show(&["--limit", "60"]);
    assert_eq!((all.out.lines().count(), &*all.err), (61, "60 rows\n"));
    assert_eq!(show(&["--limit", "0"]).out, "a  b\n");
    assert_eq!(show(&["--format", "csv"]).out.lines().count(), 61);
    assert_eq!(show(&["--format", "csv", "--limit", "2"]).out, "a,b\na0,b0\na1,b1\n");
    let document = world.json(&["table", "show", "p/a/t.table.json", "--limit", "2"]);
    assert_eq!(document, json!({ "columns": ["a", "b"], "data": [["a0", "b0"], ["a1", "b1"]] }));
    let args = ["table", "show", "p/a/t.table.json", "--limit", "7", "--format", "parquet"];
    assert_eq!(parquet(raw(&world, &args)).iter().map(RecordBatch::num_rows).sum::<usize>(), 7);
}

#[test]
fn parts_are_joined_in_path_order() {
    let world = World::new();
    let pointer = br#"{"_type": "partitioned-table", "parts_path": "parts"}"#;
    let folder = ["b", "d", "a", "c"].map(|name| format!("parts/{name}.table.json"));
    put_tree(
        &world,
        &[
            ("t.partitioned-table.json", pointer),
            (&folder[0], &table(&["x"], 2..4)),
            (&folder[2], &table(&["x"], 0..2)),
            ("parts/c/deep.table.json", &table(&["x"], 4..5)),
            (&folder[3], &table(&["x"], 5..6)),
            (&folder[1], &table(&["x"], 6..6)),
            ("parts/notes.txt", b"not a table"),
            ("parts/e.json", b"{}"),
        ],
    );
    let show = ["table", "show", "p/a/t.partitioned-table.json", "--format", "csv"];
    assert_eq!(world.ok(&show), "x\nx0\nx1\nx2\nx3\nx4\nx5\n");
    let ran = world.run(&["table", "show", "p/a/t.partitioned-table.json", "--limit", "3"]);
    assert_eq!(ran.err, "3 of 6 rows; --limit shows more\n");
}

#[test]
fn parts_with_different_columns_are_refused_before_any_output() {
    let world = World::new();
    let pointer = br#"{"_type": "partitioned-table", "parts_path": "parts/"}"#;
    for (other, wanted) in [
        (vec!["x", "z"], "column 2 is \"z\", not \"y\""),
        (vec!["y", "x"], "column 1 is \"y\", not \"x\""),
        (vec!["x"], "column 2 is none, not \"y\""),
        (vec!["x", "y", "z"], "column 3 is \"z\", not none"),
    ] {
        put_tree(
            &world,
            &[
                ("t.partitioned-table.json", pointer),
                ("parts/a.table.json", &table(&["x", "y"], 0..2)),
                ("parts/b.table.json", &table(&other, 0..2)),
            ],
        );
        for format in ["text", "json", "csv", "parquet"] {
            let path = "p/a/t.partitioned-table.json";
            let ran = world.run(&["table", "show", path, "--format", format]);
            assert_eq!((ran.code, &*ran.out), (13, ""), "{format}");
            let told = "parts/b.table.json has other columns than parts/a.table.json";
            assert!(ran.err.contains(told) && ran.err.contains(wanted), "{}", ran.err);
        }
        let ran = world.run(&["table", "partition", "p/a", "parts", "u"]);
        assert_eq!(ran.code, 13, "{}", ran.err);
    }
}

#[test]
fn dangling_pointers_are_refused() {
    let world = World::new();
    let pointer =
        |path: &str| json!({ "_type": "partitioned-table", "parts_path": path }).to_string();
    let paths = ["../parts", "/parts", "parts/../..", "", ".", "none", "file"];
    let mut files: Vec<(String, Vec<u8>)> = vec![("file".into(), b"x".to_vec())];
    for (index, path) in paths.iter().enumerate() {
        files.push((format!("{index}.partitioned-table.json"), pointer(path).into_bytes()));
    }
    files.push(("7.partitioned-table.json".into(), b"{\"_type\": \"table\"}".to_vec()));
    files.push(("8.partitioned-table.json".into(), b"{".to_vec()));
    files.push(("9.partitioned-table.json".into(), pointer("empty").into_bytes()));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(p, b)| (&**p, &**b)).collect();
    let source = world.tree("src", &files);
    fs::create_dir(source.join("empty")).unwrap();
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    for (index, code) in [13, 13, 13, 13, 13, 10, 2, 13, 13].iter().enumerate() {
        let ran = world.run(&["table", "show", &format!("p/a/{index}.partitioned-table.json")]);
        assert_eq!(ran.code, *code, "{index}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains("hint"), "{}", ran.err);
    }
    for (format, wanted) in
        [("text", "\n"), ("csv", ""), ("json", "{\n  \"columns\": [],\n  \"data\": []\n}\n")]
    {
        let ran = world.run(&["table", "show", "p/a/9.partitioned-table.json", "--format", format]);
        assert_eq!((ran.code, &*ran.out), (0, wanted), "{}", ran.err);
        assert!(ran.err.contains("the folder of parts has no tables"), "{}", ran.err);
    }
    let empty = ["table", "show", "p/a/9.partitioned-table.json", "--format", "parquet"];
    assert_eq!(parquet(raw(&world, &empty)).iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[test]
fn invalid_tables_are_refused_with_their_position() {
    let world = World::new();
    let mut torn = table(&["a"], 0..3);
    torn.truncate(torn.len() - 10);
    let source = world.tree(
        "src",
        &[
            ("torn.table.json", &torn),
            ("short.table.json", br#"{"columns": ["a", "b"], "data": [[1, 2], [3]]}"#),
            ("joined.json", br#"{"_type": "joined-table", "table1": "a"}"#),
            ("notes.txt", b"x"),
            ("dir/x", b"x"),
        ],
    );
    symlink("torn.table.json", source.join("link.table.json")).unwrap();
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let cases = [
        (
            "p/a/torn.table.json",
            13,
            "torn.table.json: expected the rest of a value, found the end at byte 53",
        ),
        (
            "p/a/short.table.json",
            13,
            "short.table.json: row 2 has 1 cells for 2 columns at byte 41",
        ),
        ("p/a/joined.json", 2, "is \"joined-table\", not a table"),
        ("p/a/notes.txt", 2, "notes.txt is not a table"),
        ("p/a/dir", 2, "dir is a directory"),
        ("p/a/link.table.json", 15, "link.table.json is not a file"),
        ("p/a/none.table.json", 10, "no none.table.json"),
        ("p/a:v7/x.table.json", 10, "v7"),
        ("p/b/x.table.json", 10, "p/b"),
        ("p/a", 2, "names no table"),
        ("p", 3, "no artifact name"),
        ("p/a/../x.table.json", 3, "file name"),
    ];
    for (path, code, words) in cases {
        let ran = world.run(&["table", "show", path]);
        assert_eq!(ran.code, code, "{path}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(words), "{path}: {}", ran.err);
    }
    let ran = world.run(&["table", "show", "p/a/short.table.json", "--format", "xml"]);
    assert!(ran.code == 2 && ran.err.contains("parquet"), "{}", ran.err);
    let ran = world.run(&["--json", "table", "show", "p/a/short.table.json", "--format", "csv"]);
    assert_eq!(ran.code, 2, "{}", ran.err);
}

#[test]
fn a_pointer_is_put_into_the_next_version_without_copying() {
    let world = World::new();
    let noise = crate::world::noise(3, 3_000_000);
    put_tree(
        &world,
        &[
            ("parts/a.table.json", &table(&["x"], 0..2)),
            ("parts/b.table.json", &table(&["x"], 2..3)),
            ("other/big", &noise),
            ("z", b"z"),
        ],
    );
    let made = world.json(&["table", "partition", "p/a:v0", "parts", "t", "-a", "joined"]);
    assert_eq!(made["reference"], "p/a:v1");
    assert_eq!((&made["path"], &made["parts"]), (&json!("t.partitioned-table.json"), &json!(2)));
    assert!(made["stored_bytes"].as_u64().unwrap() < 2_000, "{made}");
    let show = ["table", "show", "p/a:joined/t.partitioned-table.json", "--format", "csv"];
    assert_eq!(world.ok(&show), "x\nx0\nx1\nx2\n");
    assert_eq!(world.run(&["diff", "p/a:v0", "p/a:v1"]).out, "+ t.partitioned-table.json  50 B\n");
    let totals = |reference: &str| {
        let show = world.json(&["show", reference]);
        let of = |key: &str| show[key].as_u64().unwrap();
        (of("files"), of("directories"), of("size_bytes"))
    };
    let before = totals("p/a:v0");
    assert_eq!(totals("p/a:v1"), (before.0 + 1, before.1, before.2 + 50));
    // A tree does not depend on how it was made.
    let out = world.path("out");
    world.ok(&["get", "p/a:v1", "--root", out.to_str().unwrap()]);
    let put = world.json(&["put", "-n", "p/b", out.to_str().unwrap()]);
    assert_eq!(put["digest"], world.json(&["show", "p/a:v1"])["digest"]);
    // The same pointer again makes no version. Then one in a new folder, and one in the place of
    // another.
    let again = world.json(&["table", "partition", "p/a", "parts", "t.partitioned-table.json"]);
    assert_eq!((&again["reference"], &again["new_version"]), (&json!("p/a:v1"), &json!(false)));
    let deep = world.json(&["table", "partition", "p/a", "parts/", "tables/deep/u"]);
    assert_eq!(deep["path"], "tables/deep/u.partitioned-table.json");
    assert_eq!(totals("p/a:v2"), (before.0 + 2, before.1 + 2, before.2 + 100));
    let deep = world.ok(&["table", "show", "p/a/tables/deep/u.partitioned-table.json"]);
    assert_eq!(deep, "x\nx0\nx1\nx2\n");
    world.sound();
}

#[test]
fn a_pointer_in_a_long_directory_gives_the_tree_of_a_put() {
    let world = World::new();
    let source = world.tree("src", &[("parts/a.table.json", &table(&["x"], 0..1))]);
    for number in 0..3_000 {
        write(&source.join(format!("f{number:05}")), format!("{number}").as_bytes());
    }
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    let pointer = json!({ "_type": "partitioned-table", "parts_path": "parts" }).to_string();
    for name in ["0", "f01500x", "f02999x", "zz"] {
        world.ok(&["table", "partition", "p/a:v0", "parts", name]);
        let file = source.join(format!("{name}.partitioned-table.json"));
        write(&file, pointer.as_bytes());
        let put = world.json(&["put", "-n", "p/b", source.to_str().unwrap()]);
        let made = world.json(&["show", "p/a"]);
        for key in ["digest", "files", "directories", "size_bytes"] {
            assert_eq!(put[key], made[key], "{key} with {name}");
        }
        fs::remove_file(file).unwrap();
    }
    world.sound();
}

#[test]
fn invalid_pointers_are_not_written() {
    let world = World::new();
    put_tree(
        &world,
        &[
            ("parts/a.table.json", &table(&["x"], 0..2)),
            ("none/x", b"x"),
            ("t.partitioned-table.json/x", b"x"),
        ],
    );
    for (folder, name, code, words) in [
        ("missing", "t", 10, "no missing"),
        ("none", "t", 10, "no tables in none"),
        ("none/x", "t", 2, "not a folder of parts"),
        ("/", "t", 2, "a path"),
        ("../x", "t", 3, "file name"),
        ("parts", "/", 2, "no name"),
        ("parts", "t", 11, "directory t.partitioned-table.json is in the way"),
        ("parts", "none/x/t", 11, "file x is in the way"),
    ] {
        let ran = world.run(&["table", "partition", "p/a", folder, name]);
        assert_eq!(ran.code, code, "{folder} {name}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(words), "{folder} {name}: {}", ran.err);
    }
    assert_eq!(world.json(&["ls", "p/a"]).as_array().unwrap().len(), 1);
    world.sound();
}

#[test]
fn a_reader_that_closes_the_pipe_is_no_error() {
    let world = World::new();
    put_tree(&world, &[("t.table.json", &table(&["a", "b", "c"], 0..50_000))]);
    for format in ["json", "csv", "parquet"] {
        let args = ["table", "show", "p/a/t.table.json", "--format", format];
        let mut command = world.command(&args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 4];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let ran = ran(child.wait_with_output().unwrap());
        assert_eq!((ran.code, &*ran.err), (0, ""), "{format}");
    }
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = world.command(&["table", "show", "p/a/t.table.json", "--format", "parquet"]);
    let ran = ran(command.stdout(full).output().unwrap());
    assert_eq!(ran.code, 14, "{}", ran.err);
}

/// Returns the peak memory of a process, in bytes.
fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Streams a table of about `bytes` of text that does not repeat. Returns the number of rows.
fn write_long_table(path: &Path, bytes: usize) -> u64 {
    let mut file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    write!(file, "{{\"columns\": [\"id\", \"x\", \"text\"], \"data\": [").unwrap();
    let (mut rows, mut written) = (0u64, 0);
    while written < bytes {
        let mut text = String::new();
        for byte in crate::world::noise(rows, 2_000) {
            write!(text, "{byte:02x}").unwrap();
        }
        let comma = if rows == 0 { "" } else { ", " };
        write!(file, "{comma}[{rows}, {rows}.5, \"{text}\"]").unwrap();
        written += text.len() + 20;
        rows += 1;
    }
    write!(file, "]}}").unwrap();
    rows
}

#[test]
fn memory_does_not_grow_with_a_table() {
    const TABLE_BYTES: usize = 256 << 20;
    /// The most memory: the cached chunks of a store (32 MiB), a row group, a batch, and the
    /// program.
    const PEAK_BYTES: u64 = 112 << 20;
    let world = World::new();
    let source = world.tree("src", &[]);
    let rows = write_long_table(&source.join("t.table.json"), TABLE_BYTES);
    world.ok(&["put", "-n", "p/a", source.to_str().unwrap()]);
    for format in ["csv", "json", "parquet"] {
        let args = ["table", "show", "p/a/t.table.json", "--format", format];
        let mut child = world.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
        let (mut lines, mut peak) = (0, 0);
        loop {
            let seen = out.fill_buf().unwrap();
            let length = seen.len();
            lines += seen.iter().filter(|byte| **byte == b'\n').count() as u64;
            // The process lives while some of its output is unread; the last value counts.
            peak = peak_bytes(child.id()).unwrap_or(peak).max(peak);
            if length == 0 {
                break;
            }
            out.consume(length);
        }
        assert!(child.wait().unwrap().success());
        match format {
            "csv" => assert_eq!(lines, rows + 1),
            "json" => assert_eq!(lines, rows + 5),
            _ => {}
        }
        assert!(peak > 8 << 20, "{format}: the peak was not seen: {peak}");
        println!("{format}: at most {} MiB", peak >> 20);
        assert!(peak < PEAK_BYTES, "{format}: {} MiB", peak >> 20);
    }
}

#[test]
fn a_run_uses_the_tables_it_shows_and_logs_pointers() {
    let mut world = World::new();
    put_tree(&world, &[("parts/a.table.json", &table(&["x"], 0..2))]);
    let run = artifactfs::ops::runs::new_id(&artifactfs::model::host::Host::system());
    let start = RunStart {
        id: run.clone(),
        project: "p".parse().unwrap(),
        name: None,
        group: None,
        job_type: None,
        sweep: None,
        config: Default::default(),
        holder: None,
        command: Vec::new(),
        token: 1,
    };
    world.open().registry.begin_run(start, Resume::Never).unwrap();
    let edges = |world: &World, logged| -> Vec<String> {
        let edges = world.open().registry.edges(run.clone(), logged, None, 100).unwrap().items;
        edges.iter().map(|edge| format!("{}:{}", edge.path, edge.number)).collect()
    };
    world.env.push(("ARTIFACTFS_RUN", run.to_string().into()));
    world.ok(&["table", "show", "p/a:v0/parts/a.table.json"]);
    assert_eq!(edges(&world, false), ["p/a:v0"]);
    world.ok(&["table", "partition", "p/a", "parts", "t"]);
    assert_eq!(
        (edges(&world, false), edges(&world, true)),
        (vec!["p/a:v0".to_owned()], vec!["p/a:v1".to_owned()])
    );
}
