//! The registry: whether it answers, takes schemas, and holds up a change that would break readers.

use std::path::Path;

use super::finding::Finding;
use crate::config::settled::Pipeline;
use crate::pipeline;
use crate::registry::Client;
use crate::registry::directory::Directory;

/// Looks at the registry.
pub(super) async fn look(settings: &Pipeline) -> Vec<Finding> {
    const CHECK: &str = "registry.connect";
    let address = settings.registry.address();
    let url = address.as_str();
    let client = Client::new(pipeline::registry_settings(&settings.registry));
    let refused = |error| {
        let fault = pipeline::of_registry(&error, url);
        vec![Finding::fault(CHECK, &fault).advice(fault.mend.clone())]
    };
    let client = match client {
        Ok(client) => client,
        Err(error) => return refused(error),
    };
    let level = match client.compatibility().await {
        Ok(level) => level,
        Err(error) => return refused(error),
    };
    let mut findings = vec![Finding::ok(CHECK, format!("{url} lets us in"))];
    let own = settings.registry.own.as_ref();
    findings.extend(own.map(|own| directory(&own.directory)));
    findings.push(compatibility(url, &level));
    // Not every registry has modes.
    if let Ok(mode) = client.mode().await {
        findings.push(writable(url, &mode));
    }
    findings
}

fn directory(path: &Path) -> Finding {
    const CHECK: &str = "registry.directory";
    match Directory::at(path.to_owned()).writable() {
        Ok(()) => Finding::ok(CHECK, format!("{} can be written", path.display())),
        Err(reason) => {
            let fault = pipeline::of_directory(&path.display().to_string(), &reason);
            Finding::fault(CHECK, &fault).advice(fault.mend.clone())
        }
    }
}

fn compatibility(url: &str, level: &str) -> Finding {
    const CHECK: &str = "registry.compatibility";
    if level != "NONE" {
        return Finding::ok(CHECK, format!("its compatibility level is {level}"));
    }
    let what = "its compatibility level is NONE: a migration that breaks consumers is not held up";
    // Apicurio changes through Confluent's API only a level that was set before.
    let command = match url.split_once("/apis/ccompat/") {
        Some((apicurio, _)) => format!(
            "curl -X POST -H 'Content-Type: application/json' --data '{{\"type\": \
             \"COMPATIBILITY\", \"config\": \"BACKWARD\"}}' {apicurio}/apis/registry/v2/admin/rules"
        ),
        None => put(url, "config", "compatibility", "BACKWARD"),
    };
    Finding::warning(CHECK, what).command(command)
}

fn writable(url: &str, mode: &str) -> Finding {
    const CHECK: &str = "registry.mode";
    if mode == "READWRITE" {
        return Finding::ok(CHECK, "it takes schemas");
    }
    let what = format!("it is in mode {mode}: it takes no schema of ours");
    Finding::error(CHECK, what).command(put(url, "mode", "mode", "READWRITE"))
}

fn put(url: &str, path: &str, key: &str, value: &str) -> String {
    format!(
        "curl -X PUT -H 'Content-Type: application/vnd.schemaregistry.v1+json' --data \
         '{{\"{key}\": \"{value}\"}}' {url}/{path}"
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_registry_that_takes_no_schema_is_an_error_with_the_command_that_mends_it() {
        let found = writable("http://registry:8081", "READONLY");
        assert_eq!(found.level, Level::Error);
        assert_eq!(
            found.mend.first().map(super::super::Step::text).as_deref(),
            Some(
                "curl -X PUT -H 'Content-Type: application/vnd.schemaregistry.v1+json' --data \
                 '{\"mode\": \"READWRITE\"}' http://registry:8081/mode"
            )
        );
        assert_eq!(writable("http://registry:8081", "READWRITE").level, Level::Ok);
    }
}
