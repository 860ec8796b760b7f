//! The image, as far as it can be seen without an engine. That the daemon works in what the image
//! holds is shown by `tests/it/contained.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{path, printed, text};

/// One instruction, with the lines that it is continued on.
fn instructions() -> Vec<(String, String)> {
    let file = text("Dockerfile").replace("\\\n", " ");
    let lines = file.lines().filter(|line| !line.trim_start().starts_with('#'));
    let parts = lines.filter_map(|line| line.trim().split_once(' '));
    parts.map(|(name, rest)| (name.to_owned(), rest.trim().to_owned())).collect()
}

/// Those of the last stage.
fn last_stage() -> Vec<(String, String)> {
    let all = instructions();
    let start = all.iter().rposition(|(name, _)| name == "FROM").expect("a stage");
    all[start..].to_vec()
}

#[track_caller]
fn only<'a>(stage: &'a [(String, String)], name: &str) -> &'a str {
    let mut found = stage.iter().filter(|(one, _)| one == name);
    let (_, rest) = found.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(found.next().is_none(), "{name} twice");
    rest
}

#[test]
fn the_image_has_no_shell_and_does_not_run_as_root() {
    let stage = last_stage();
    assert_eq!(only(&stage, "FROM"), "gcr.io/distroless/cc-debian12:nonroot");
    assert!(stage.iter().all(|(name, _)| name != "RUN"), "a RUN needs a shell");
    assert_eq!(only(&stage, "USER"), "65532:65532");
    for (name, words) in [
        ("ENTRYPOINT", r#"["/usr/local/bin/waltide"]"#),
        ("CMD", r#"["run"]"#),
        ("VOLUME", "/var/lib/waltide"),
        ("STOPSIGNAL", "SIGTERM"),
    ] {
        assert_eq!(only(&stage, name), words);
    }
    let check = only(&stage, "HEALTHCHECK");
    assert!(
        check.ends_with(r#"CMD ["/usr/local/bin/waltide", "healthcheck", "--live"]"#),
        "{check}"
    );
    crate::documents::assert_is_a_command("waltide healthcheck --live");
    let labels = only(&stage, "LABEL");
    for label in ["title", "description", "licenses", "version"] {
        assert!(labels.contains(&format!("org.opencontainers.image.{label}=")), "{label}");
    }
}

#[test]
fn the_image_is_built_by_the_oldest_compiler_that_will_do() {
    let manifest = text("Cargo.toml");
    let (_, rest) = manifest.split_once("rust-version = \"").expect("a version");
    let version = rest.split('"').next().expect("its end");
    let all = instructions();
    let argument = all.iter().find(|(_, rest)| rest.starts_with("RUST_VERSION="));
    assert_eq!(argument.map(|(_, rest)| rest.as_str()), Some(&*format!("RUST_VERSION={version}")));
}

/// What `.dockerignore` lets through is enough to build from: every file that the daemon's own crates
/// include or name is in there.
#[test]
fn the_build_has_all_it_reads() {
    let file = text(".dockerignore");
    let mut lines = file.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    assert_eq!(lines.next(), Some("*"));
    let context = tempfile();
    for name in lines.filter_map(|line| line.strip_prefix('!')) {
        let mut copy = Command::new("cp");
        printed(copy.arg("-r").arg(path(name)).arg(&context));
    }
    // Of other platforms the machine need not have the crates.
    let rustc = printed(Command::new("rustc").arg("-vV"));
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).expect("a platform");
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--locked", "--offline", "--format-version", "1"]);
    metadata.args(["--filter-platform", host, "--manifest-path"]);
    printed(metadata.arg(context.join("Cargo.toml")));
    let included: BTreeSet<String> = included(&["src", "crates/core/src"]);
    assert!(included.contains("schemas/checkpoint.avsc"), "{included:?}");
    for name in included {
        assert!(context.join(&name).exists(), "{name} is not in the context");
    }
    assert!(context.join("scripts/build-release.sh").exists());
    fs::remove_dir_all(&context).expect("removed");
}

fn tempfile() -> std::path::PathBuf {
    let name = format!("context-{}", std::process::id());
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&place);
    fs::create_dir(&place).expect("a directory");
    place
}

/// Files of the repository that sources include. Those that only tests of theirs read are documents.
fn included(places: &[&str]) -> BTreeSet<String> {
    let mut list = Command::new("grep");
    let said = printed(list.args(["-rhoE", r#"include_(str|bytes)!\("[^"]+"\)"#]).args(places));
    let names = said.lines().filter_map(|line| line.split('"').nth(1));
    let names = names.map(|name| name.trim_start_matches("../").to_owned());
    names.filter(|name| !name.starts_with("docs/") && name.contains('/')).collect()
}

/// The image brings libc, libm and libgcc; everything else is in the binary.
#[test]
fn the_program_needs_no_library_that_the_image_lacks() {
    let said = printed(Command::new("ldd").arg(env!("CARGO_BIN_EXE_waltide")));
    let needed: Vec<&str> =
        said.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(needed.contains(&"libc.so.6"), "{said}");
    for name in needed {
        let brought = ["linux-vdso.so", "libc.so.6", "libm.so.6", "libgcc_s.so.1"];
        let loader = name.starts_with('/') && name.contains("/ld-linux");
        assert!(loader || brought.iter().any(|one| name.starts_with(one)), "{name}\n{said}");
    }
}
