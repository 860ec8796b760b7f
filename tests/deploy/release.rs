//! What a release brings along, and what CI and systemd are told.

use std::fs;
use std::path::Path;
use std::process::Command;

use waltide_stack::serde_json::{self, Value};

use crate::support::{path, printed, text, yaml_file};

#[test]
fn the_bill_of_materials_has_all_that_is_in_the_binary_and_nothing_of_the_tests() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sbom-{}", std::process::id()));
    printed(Command::new(path("scripts/sbom.py")).arg(&place));
    let bill = fs::read_to_string(place.join("waltide.cdx.json")).expect("a bill");
    let licences = fs::read_to_string(place.join("THIRD-PARTY-LICENSES.txt")).expect("licences");
    fs::remove_dir_all(&place).expect("removed");
    let bill: Value = serde_json::from_str(&bill).expect("JSON");
    let components = bill["components"].as_array().expect("components");
    let names: Vec<&str> =
        components.iter().map(|one| one["name"].as_str().expect("a name")).collect();
    for name in ["tokio", "rdkafka-sys", "openssl-src", "libz-sys", "zstd-sys", "ring", "axum"] {
        assert!(names.contains(&name), "{name} is missing");
        assert!(licences.contains(&format!("\n{name} ")), "{name} has no licence");
    }
    for name in ["postgres", "apache-avro", "rcgen", "waltide", "cc"] {
        assert!(!names.contains(&name), "{name} is not in the binary");
    }
    for one in components {
        assert!(one["hashes"][0]["content"].as_str().is_some_and(|hash| hash.len() == 64), "{one}");
        assert!(
            one["licenses"][0]["expression"].as_str().is_some_and(|it| !it.is_empty()),
            "{one}"
        );
    }
    assert!(
        licences.contains("--- openssl/LICENSE") && licences.contains("--- librdkafka/LICENSE"),
        "C libraries' own"
    );
}

#[test]
fn the_unit_of_systemd_allows_what_is_needed_and_little_more() {
    let unit = text("deploy/systemd/waltide.service");
    for line in [
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "PrivateDevices=yes",
        "SystemCallFilter=@system-service",
        "MemoryDenyWriteExecute=yes",
        // Where spool lies by default, and no shorter than the daemon takes.
        "StateDirectory=waltide",
        "TimeoutStopSec=30",
        // Exit code 2 is a configuration that does not hold.
        "RestartPreventExitStatus=2",
    ] {
        assert!(unit.lines().any(|one| one == line), "no {line}");
    }
    let commands = unit.lines().filter_map(|line| line.strip_prefix("Exec")?.split_once('='));
    for (_, command) in commands {
        let arguments = command.strip_prefix("/usr/local/bin/").expect("the program");
        crate::documents::assert_is_a_command(arguments);
    }
}

#[test]
fn the_package_for_debian_has_what_its_unit_asks_for() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("deb-{}", std::process::id()));
    let (binary, version) = (env!("CARGO_BIN_EXE_waltide"), env!("CARGO_PKG_VERSION"));
    let mut make = Command::new(path("scripts/deb.sh"));
    // A debug build is large, and packing it well would take longer than all else.
    make.args([binary, version]).arg(&place).env("DEB_COMPRESSION", "none");
    let package = printed(&mut make);
    let root = place.join("root");
    printed(Command::new("dpkg-deb").arg("-x").arg(package.trim()).arg(&root));
    let field = |name: &str| {
        printed(Command::new("dpkg-deb").arg("-f").arg(package.trim()).arg(name)).trim().to_owned()
    };
    assert_eq!((field("Package"), field("Version")), ("waltide".to_owned(), version.to_owned()));
    assert!(field("Depends").starts_with("libc6 (>= 2."), "{}", field("Depends"));
    let listed = printed(Command::new("dpkg-deb").arg("-c").arg(package.trim()));
    let mode = |name: &str| {
        let line = listed.lines().find(|line| line.ends_with(&format!(" ./{name}")));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{listed}"));
        assert!(line.contains(" root/root "), "{line}");
        line.split(' ').next().unwrap_or_default().to_owned()
    };
    assert_eq!(mode("etc/waltide/secrets/"), "drwx------");
    assert_eq!(mode("etc/waltide/waltide.yaml"), "-rw-r-----");
    for file in ["usr/share/man/man1/waltide.1", "usr/share/bash-completion/completions/waltide"] {
        assert_eq!(mode(file), "-rw-r--r--");
    }
    let unit = fs::read_to_string(root.join("usr/lib/systemd/system/waltide.service"));
    let unit = unit.expect("the unit");
    // As hardened as the one that is copied by hand, and everything that it names is there.
    for line in text("deploy/systemd/waltide.service").lines() {
        let other = ["Exec", "Environment=", "#"].iter().any(|word| line.starts_with(word));
        assert!(other || unit.lines().any(|one| one == line), "no {line}");
    }
    for command in unit.lines().filter_map(|line| line.strip_prefix("Exec")?.split_once('=')) {
        let program = command.1.split(' ').next().unwrap_or_default();
        assert!(root.join(program.trim_start_matches('/')).exists(), "no {program}");
    }
    // Both credentials come from where the package has a place for them.
    for line in unit.lines().filter_map(|line| line.strip_prefix("LoadCredential=")) {
        let (_, file) = line.split_once(':').expect("a file");
        let place = root.join(file.trim_start_matches('/'));
        assert!(place.exists() || place.parent().is_some_and(Path::exists), "no place for {file}");
    }
    let mut check = Command::new(root.join("usr/bin/waltide"));
    printed(check.args(["config", "check", "--config"]).arg(root.join("etc/waltide/waltide.yaml")));
    fs::remove_dir_all(&place).expect("removed");
}

#[test]
fn workflows_call_what_there_is() {
    let makefile = text("Makefile");
    for name in ["ci", "release"] {
        let workflow = yaml_file(&format!(".github/workflows/{name}.yml"));
        for (job, what) in workflow["jobs"].as_object().expect("jobs") {
            assert!(what["timeout-minutes"].is_u64(), "{job} may hang");
            for step in what["steps"].as_array().expect("steps") {
                for line in step["run"].as_str().unwrap_or_default().lines() {
                    if let Some(target) = line.strip_prefix("make ") {
                        assert!(makefile.contains(&format!("\n{target}: ")), "no target {target}");
                    }
                    let script = line.split_whitespace().next().unwrap_or_default();
                    if script.starts_with("scripts/") {
                        assert!(path(script).exists(), "no {script}");
                    }
                }
            }
        }
    }
}
