//! Files of the repository, and what tools say of them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use waltide_stack::Tools;
use waltide_stack::serde_json::{self, Value};

/// A file of the repository.
pub(crate) fn path(name: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What a file of the repository says.
#[track_caller]
pub(crate) fn text(name: impl AsRef<Path>) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a command prints; it must not fail.
#[track_caller]
pub(crate) fn printed(command: &mut Command) -> String {
    match outcome(command) {
        Ok(said) => said,
        Err(said) => panic!("{command:?}:\n{said}"),
    }
}

/// What a command prints, or what it says where it fails.
#[track_caller]
pub(crate) fn outcome(command: &mut Command) -> Result<String, String> {
    command.current_dir(path("")).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(said) } else { Err(complaint + &said) }
}

/// Runs a tool on files of the repository.
#[track_caller]
pub(crate) fn tool<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> String {
    printed(Tools::shared().program(name).args(arguments))
}

/// The documents of a text in YAML, as values; the empty ones are left out.
#[track_caller]
pub(crate) fn yaml(text: &str) -> Vec<Value> {
    const READ: &str = "import json, sys, yaml
print(json.dumps([d for d in yaml.safe_load_all(open(sys.argv[1])) if d is not None], default=str))";
    let file = Scratch::of("yaml", text);
    let said = printed(Tools::shared().python().args(["-c", READ]).arg(file.path()));
    serde_json::from_str(&said).expect("JSON")
}

/// The one document of a file of the repository.
#[track_caller]
pub(crate) fn yaml_file(name: &str) -> Value {
    let mut documents = yaml(&text(name));
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}

/// A file that goes away with its owner.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    #[track_caller]
    pub(crate) fn of(extension: &str, text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("deploy-{}-{number}.{extension}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, text).expect("a file");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The texts of a list.
#[track_caller]
pub(crate) fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(|item| item.as_str().expect("a text")).collect()
}

/// Names that exist so that a mistake in their spelling is found: metrics, in `src`.
pub(crate) fn exported_metrics() -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![path("src")];
    while let Some(place) = open.pop() {
        if place.is_dir() {
            open.extend(fs::read_dir(&place).expect("a directory").flatten().map(|e| e.path()));
            continue;
        }
        let source = fs::read_to_string(&place).expect("a source file");
        // What tests say is no proof that it is exported.
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let literals = source.split('"').skip(1).step_by(2);
        let names = literals.filter(|text| is_metric(text)).map(str::to_owned);
        found.extend(names);
    }
    found.sort();
    found.dedup();
    found
}

fn is_metric(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    text.strip_prefix("waltide_").is_some_and(|rest| !rest.is_empty() && rest.chars().all(plain))
}

/// The metrics of ours that an expression of Prometheus names.
pub(crate) fn named_metrics(expression: &str) -> Vec<String> {
    let words = expression.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| is_metric(word)).map(str::to_owned).collect()
}

/// Every metric of ours that the expressions name must be one that the daemon exports.
#[track_caller]
pub(crate) fn assert_exported<'a>(expressions: impl IntoIterator<Item = &'a str>) {
    let exported = exported_metrics();
    assert!(exported.iter().any(|name| name == "waltide_source_lag_seconds"), "{exported:?}");
    for expression in expressions {
        let named = named_metrics(expression);
        assert!(!named.is_empty(), "no metric of ours in: {expression}");
        for name in named {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let known = exported.iter().any(|one| *one == name || Some(one.as_str()) == base);
            assert!(known, "{name} is not exported: {expression}");
        }
    }
}
