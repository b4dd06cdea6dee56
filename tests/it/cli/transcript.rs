//! Documents that show commands with what they print.

use crate::world::Ran;

const BEGINS_BLOCK: &str = "```console";
const ENDS_BLOCK: &str = "```";
const BEGINS_COMMAND: &str = "$ ";
const CONTINUES_COMMAND: &str = "> ";
const OF_STDERR: &str = "2> ";

/// Returns the document with what `run` gives for each command in place of what stood there.
pub fn replay(document: &str, mut run: impl FnMut(&str) -> String) -> String {
    let mut replayed = String::new();
    let mut lines = document.lines().peekable();
    let mut in_block = false;
    while let Some(line) = lines.next() {
        let first = line.strip_prefix(BEGINS_COMMAND).filter(|_| in_block);
        if in_block && line != ENDS_BLOCK && first.is_none() {
            continue;
        }
        push_line(&mut replayed, line);
        if let Some(first) = first {
            let mut command = first.to_owned();
            while let Some(line) = lines.next_if(|line| line.starts_with(CONTINUES_COMMAND)) {
                push_line(&mut replayed, line);
                command.push('\n');
                command.push_str(&line[CONTINUES_COMMAND.len()..]);
            }
            replayed.push_str(&run(&command));
        }
        in_block = line == BEGINS_BLOCK || in_block && line != ENDS_BLOCK;
    }
    replayed
}

/// Returns what a command printed and its exit status, as a document shows them.
///
/// # Panics
/// If a printed line would be taken for a command, or for the end of the block.
pub fn printed(command: &str, ran: &Ran) -> String {
    let mut text = String::new();
    for line in ran.out.lines() {
        push_line(&mut text, line);
    }
    for line in ran.err.lines() {
        push_line(&mut text, format!("{OF_STDERR}{line}").trim_end());
    }
    if ran.code != 0 {
        push_line(&mut text, &format!("[exit status {}]", ran.code));
    }
    let confusing = |line: &str| {
        line.starts_with(BEGINS_COMMAND)
            || line.starts_with(CONTINUES_COMMAND)
            || line == ENDS_BLOCK
    };
    assert!(!text.lines().any(confusing), "{command}: a document cannot show this:\n{text}");
    text
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
