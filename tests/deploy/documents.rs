//! What the documents tell people to type: each command exists and takes these arguments, each
//! configuration holds. What needs servers is run by `tests/it/documents.rs`.

use clap::Parser as _;
use waltide::cli::args::Arguments;
use waltide::config::{self, Environment};

use crate::support::{path, text};

const PAGES: [&str; 13] = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/api.md",
    "docs/configuration.md",
    "docs/deployment.md",
    "docs/errors.md",
    "docs/faults.md",
    "docs/guarantees.md",
    "docs/migrations.md",
    "docs/runbook.md",
    "docs/torture.md",
    "docs/verify.md",
    "docs/versions.md",
];

/// The code blocks of a page in a language, without their indentation.
pub(crate) fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for line in page.lines() {
        let bare = line.trim_start();
        match &mut open {
            Some((indent, block)) => {
                if bare.starts_with("```") {
                    blocks.extend(open.take().map(|(_, block)| block));
                } else {
                    block.push_str(line.get(*indent..).unwrap_or_default());
                    block.push('\n');
                }
            }
            None if bare == format!("```{language}") => {
                open = Some((line.len() - bare.len(), String::new()));
            }
            None => {}
        }
    }
    blocks
}

/// That the daemon's command line takes it.
#[track_caller]
pub(crate) fn assert_is_a_command(line: &str) {
    let words = line.split_whitespace().take_while(|word| !["|", ">", "#"].contains(word));
    if let Err(error) = Arguments::try_parse_from(words) {
        assert!(!error.use_stderr(), "{line}: {error}");
    }
}

#[test]
fn every_command_of_ours_exists() {
    let makefile = text("Makefile");
    let mut commands = 0;
    for page in PAGES {
        for line in blocks(&text(page), "sh").iter().flat_map(|block| block.lines()) {
            let line = line.trim();
            if line.starts_with("waltide ") {
                assert_is_a_command(line);
                commands += 1;
            } else if let Some(target) = line.strip_prefix("make ") {
                let target = target.split_whitespace().next().unwrap_or_default();
                assert!(makefile.contains(&format!("\n{target}: ")), "{page}: no target {target}");
                commands += 1;
            }
        }
        // In the midst of a sentence.
        let text = text(page);
        for code in text.split('`').skip(1).step_by(2) {
            let mut words = code.split_whitespace();
            if words.next() == Some("waltide") && !code.contains('\n') {
                // Names in capitals stand for something; what is left out is left out.
                let known = words.take_while(|word| word.starts_with(char::is_lowercase));
                let line: Vec<&str> = ["waltide"].into_iter().chain(known).collect();
                if line.len() > 1 {
                    assert_begins_a_command(page, &line);
                }
            }
        }
    }
    assert!(commands >= 10, "{commands}");
}

/// That there is such a command, whatever arguments it wants.
#[track_caller]
fn assert_begins_a_command(page: &str, words: &[&str]) {
    use clap::CommandFactory as _;
    let command = Arguments::command();
    let mut at = &command;
    for word in &words[1..] {
        match at.find_subcommand(word) {
            Some(inner) => at = inner,
            // The arguments begin.
            None if !at.has_subcommands() => return,
            None => panic!("{page}: there is no `{}`", words.join(" ")),
        }
    }
}

#[test]
fn every_configuration_holds() {
    let mut configurations = 0;
    for page in PAGES {
        for block in blocks(&text(page), "yaml") {
            if block.contains("pipelines:\n") {
                let loaded = config::parse(page, &block, &Environment::default());
                loaded.unwrap_or_else(|errors| panic!("{errors}"));
                configurations += 1;
            }
        }
    }
    assert!(configurations >= 2, "{configurations}");
}

#[test]
fn every_page_is_looked_at() {
    let listed = std::fs::read_dir(path("docs")).expect("docs");
    for entry in listed.flatten() {
        let name = format!("docs/{}", entry.file_name().to_string_lossy());
        // These have no commands for users.
        let left_out = ["docs/performance.md", "docs/types.md", "docs/metrics.md"];
        if name.ends_with(".md") && !left_out.contains(&name.as_str()) {
            assert!(PAGES.contains(&name.as_str()), "{name}");
        }
    }
}
