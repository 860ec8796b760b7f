//! Chart and manifests, as helm and kustomize render them, against the schemas of Kubernetes itself
//! and the rules of its restricted Pod Security Standard.

use waltide::config::{self, Environment};
use waltide_stack::Tools;
use waltide_stack::serde_json::{Value, json};

use crate::support::{Scratch, outcome, printed, text, tool, yaml};

/// The versions whose schemas are asked. The first is the oldest whose users still get fixes.
const MINORS: [&str; 4] = ["1.31.0", "1.33.0", "1.35.0", "1.37.0"];

pub(crate) const CHART: &str = "deploy/helm/waltide";
const MANIFESTS: [&str; 4] = ["base", "standby", "sidecar", "cloudnative-pg"];

/// The chart with values, by files below `ci` and single settings.
pub(crate) fn rendered(files: &[&str], set: &str) -> Result<Vec<Value>, String> {
    let mut helm = Tools::shared().program("helm");
    helm.args(["template", "shop", CHART, "--namespace", "cdc", "--kube-version", "1.34.0"]);
    for file in files {
        helm.arg("--values").arg(format!("{CHART}/ci/{file}-values.yaml"));
    }
    outcome(helm.args(["--set", set])).map(|text| yaml(&text))
}

#[track_caller]
fn chart(files: &[&str], set: &str) -> Vec<Value> {
    rendered(files, set).unwrap_or_else(|said| panic!("{said}"))
}

fn manifests(name: &str) -> Vec<Value> {
    yaml(&tool("kustomize", ["build", &format!("deploy/kubernetes/{name}")]))
}

/// Everything that is rendered, by what it was rendered from.
fn everything() -> Vec<(String, Vec<Value>)> {
    let mut all = vec![
        ("chart".to_owned(), chart(&["one"], "")),
        ("chart with a standby".to_owned(), chart(&["one"], "standby.enabled=true")),
        ("chart with everything".to_owned(), chart(&["everything"], "")),
        ("chart with schemas".to_owned(), chart(&["one"], "schemas.claim=kept")),
        ("chart with nothing".to_owned(), chart(&["bare"], "")),
        (
            "chart with a PodMonitor".to_owned(),
            chart(&["one"], "monitor.enabled=true,rules.enabled=true"),
        ),
    ];
    all.extend(MANIFESTS.map(|name| (name.to_owned(), manifests(name))));
    all
}

#[track_caller]
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// The specs of pods in an object.
fn pod(object: &Value) -> Option<&Value> {
    match object["kind"].as_str()? {
        "Pod" => Some(&object["spec"]),
        "Deployment" | "StatefulSet" => Some(&object["spec"]["template"]["spec"]),
        _ => None,
    }
}

fn containers(pod: &Value) -> Vec<&Value> {
    let of = |key: &str| pod[key].as_array().into_iter().flatten();
    of("initContainers").chain(of("containers")).collect()
}

/// Objects of the Prometheus Operator, whose schemas are not Kubernetes' own.
fn is_foreign(object: &Value) -> bool {
    object["apiVersion"] == "monitoring.coreos.com/v1"
}

#[test]
fn a_registry_of_its_own_gets_a_volume_that_stays_and_a_port() {
    let with = chart(&["one"], "schemas.claim=kept");
    let deployment = of_kind(&with, "Deployment");
    assert_eq!(deployment["spec"]["strategy"], json!({ "type": "Recreate" }));
    let pod = pod(deployment).expect("a pod");
    let volume = json!({ "name": "schemas", "persistentVolumeClaim": { "claimName": "kept" } });
    assert!(pod["volumes"].as_array().is_some_and(|all| all.contains(&volume)));
    let mount = json!({ "name": "schemas", "mountPath": "/var/lib/waltide-schemas" });
    for container in containers(pod) {
        assert!(container["volumeMounts"].as_array().is_some_and(|all| all.contains(&mount)));
    }
    let port = json!({ "name": "schemas", "port": 8081, "targetPort": "schemas" });
    let service = of_kind(&with, "Service");
    assert!(service["spec"]["ports"].as_array().is_some_and(|all| all.contains(&port)));
    let open = &of_kind(&with, "NetworkPolicy")["spec"]["ingress"][1]["ports"][0]["port"];
    assert_eq!(open, "schemas");
    // Two that share it take over from each other as ever.
    let both = chart(&["one"], "schemas.claim=kept,standby.enabled=true");
    assert_eq!(of_kind(&both, "Deployment")["spec"]["strategy"]["type"], "RollingUpdate");
    let without = chart(&["one"], "");
    assert!(!without.iter().any(|object| object.to_string().contains("schemas")));
}

#[test]
fn the_chart_has_nothing_to_complain_of() {
    for file in ["one", "everything", "bare"] {
        let values = format!("{CHART}/ci/{file}-values.yaml");
        tool("helm", ["lint", "--strict", CHART, "--values", &values]);
    }
}

#[test]
fn kubernetes_takes_all_that_is_rendered() {
    let mut objects = 0;
    let mut documents = String::new();
    for (_, rendered) in everything() {
        for object in rendered.iter().filter(|object| !is_foreign(object)) {
            documents.push_str(&format!("---\n{object}\n"));
            objects += 1;
        }
    }
    let file = Scratch::of("yaml", &documents);
    for minor in MINORS {
        let mut validate = Tools::shared().python();
        validate.args(["-m", "kubernetes_validate", "--strict", "-k", minor]).arg(file.path());
        let mut validate = shell_joined(validate);
        let said = printed(&mut validate);
        assert_eq!(said.matches(" passed for ").count(), objects, "{minor}:\n{said}");
    }
}

/// What a checker says on both streams is wanted as one text.
fn shell_joined(command: std::process::Command) -> std::process::Command {
    let mut joined = std::process::Command::new("sh");
    joined.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(command.get_program());
    joined.args(command.get_args());
    joined.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    joined
}

#[test]
fn every_pod_passes_the_restricted_standard() {
    for (from, objects) in everything() {
        for pod in objects.iter().filter_map(pod) {
            for key in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod[key].is_null(), "{from}: {key}");
            }
            let kinds = [
                "configMap",
                "emptyDir",
                "secret",
                "ephemeral",
                "projected",
                "persistentVolumeClaim",
            ];
            for volume in pod["volumes"].as_array().into_iter().flatten() {
                assert!(kinds.iter().any(|kind| volume[kind].is_object()), "{from}: {volume}");
            }
            assert_eq!(pod["automountServiceAccountToken"], false, "{from}");
            let outer = &pod["securityContext"];
            assert_eq!(outer["seccompProfile"]["type"], "RuntimeDefault", "{from}");
            assert_eq!(outer["runAsNonRoot"], true, "{from}");
            for container in containers(pod) {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false, "{from}: {container}");
                assert_eq!(context["capabilities"]["drop"][0], "ALL", "{from}: {container}");
                assert!(context["capabilities"]["add"].is_null(), "{from}: {container}");
                assert_ne!(context["privileged"], true, "{from}: {container}");
                assert_ne!(context["runAsNonRoot"], false, "{from}: {container}");
                let user = context["runAsUser"].as_u64().or(outer["runAsUser"].as_u64());
                assert!(user.is_some_and(|user| user > 0), "{from}: {container}");
                for port in container["ports"].as_array().into_iter().flatten() {
                    assert!(port["hostPort"].is_null(), "{from}: {port}");
                }
                if is_ours(container) {
                    assert_eq!(context["readOnlyRootFilesystem"], true, "{from}: {container}");
                }
            }
        }
    }
}

#[test]
fn pods_run_as_the_user_to_whom_the_image_gives_its_spool() {
    let user = text("Dockerfile");
    assert!(user.contains("USER 65532:65532") && user.contains("-o 65532 -g 65532"));
    for (from, objects) in everything() {
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment");
        for pod in deployment.iter().filter_map(|object| pod(object)) {
            for key in ["runAsUser", "runAsGroup", "fsGroup"] {
                assert_eq!(pod["securityContext"][key], 65532, "{from}: {key}");
            }
        }
    }
}

fn is_ours(container: &Value) -> bool {
    container["image"].as_str().is_some_and(|image| image.contains("/waltide"))
}

#[test]
fn every_container_says_what_it_takes() {
    for (from, objects) in everything() {
        for container in objects.iter().filter_map(pod).flat_map(containers) {
            let resources = &container["resources"];
            for place in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
                assert!(resources.pointer(place).is_some(), "{from}: no {place}: {container}");
            }
            if is_ours(container) {
                assert!(resources["limits"]["cpu"].is_null(), "{from}: throttled, it falls behind");
                // tests/it/contained.rs runs the daemon within this.
                assert_eq!(resources["limits"]["memory"], "192Mi", "{from}");
            }
        }
    }
}

#[test]
fn a_roll_out_has_the_new_one_ready_before_the_old_one_ends() {
    for (from, objects) in everything() {
        let Some(deployment) = objects.iter().find(|object| object["kind"] == "Deployment") else {
            continue;
        };
        let strategy = &deployment["spec"]["strategy"]["rollingUpdate"];
        // Where a volume may be one node's alone, the old one ends first.
        if from != "chart with schemas" {
            let told = (&strategy["maxSurge"], &strategy["maxUnavailable"]);
            assert_eq!(told, (&1.into(), &0.into()), "{from}");
        }
        let pod = pod(deployment).expect("a pod");
        assert!(pod["terminationGracePeriodSeconds"].as_u64() >= Some(30), "{from}");
        let container = containers(pod)[0];
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz", "{from}");
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez", "{from}");
        let two = deployment["spec"]["replicas"] == 2;
        let budget = objects.iter().any(|object| object["kind"] == "PodDisruptionBudget");
        assert_eq!(two, budget, "{from}: a budget is for two");
    }
    // Less than the daemon takes is refused by the chart.
    assert!(rendered(&["one"], "terminationGracePeriodSeconds=10").is_err());
}

#[test]
fn a_sidecar_cannot_take_the_database_out_of_service() {
    let objects = manifests("sidecar");
    let pod = pod(of_kind(&objects, "StatefulSet")).expect("a pod");
    let sidecar = &pod["initContainers"][0];
    assert!(is_ours(sidecar), "{sidecar}");
    assert_eq!(sidecar["restartPolicy"], "Always", "else Postgres would wait for its end");
    assert!(sidecar["readinessProbe"].is_null(), "it would take the whole pod out of service");
    assert!(sidecar["startupProbe"].is_null(), "Postgres would wait for it");
    assert_eq!(sidecar["livenessProbe"]["httpGet"]["path"], "/livez");
    let ours = &of_kind(&objects, "ConfigMap")["data"]["waltide.yaml"];
    let url = ours.as_str().expect("a file");
    assert!(url.contains("127.0.0.1:5432") && url.contains("target_session_attrs=primary"));
}

#[test]
fn configurations_hold_and_their_secrets_are_mounted() {
    for (from, objects) in everything() {
        let Some(map) = objects.iter().find(|object| object["kind"] == "ConfigMap") else {
            continue;
        };
        let file = map["data"]["waltide.yaml"].as_str().expect("a file");
        let holder = objects.iter().find(|object| pod(object).is_some()).and_then(pod);
        let container = containers(holder.expect("a pod"))[0];
        let mounts = container["volumeMounts"].as_array().expect("mounts");
        let paths: Vec<&str> =
            mounts.iter().map(|mount| mount["mountPath"].as_str().expect("a path")).collect();
        for place in file.split(|letter: char| letter.is_whitespace() || "=&}:".contains(letter)) {
            if place.starts_with("/run/") {
                let (directory, _) = place.rsplit_once('/').expect("a path");
                assert!(paths.contains(&directory), "{from}: {place} is mounted nowhere");
            }
        }
        for needed in ["/etc/waltide", "/var/lib/waltide"] {
            assert!(paths.contains(&needed), "{from}: {needed}");
        }
        // What comes from a file cannot be looked up here.
        let file = file.replace("${file:/run/secrets/waltide/kafka/password}", "secret");
        let loaded = config::parse("waltide.yaml", &file, &Environment::default());
        loaded.unwrap_or_else(|errors| panic!("{from}: {errors}"));
    }
}

#[test]
fn an_endpoint_with_a_certificate_is_asked_over_tls_by_all() {
    let set = "http.tlsSecret=endpoint,monitor.enabled=true,monitor.tlsConfig.serverName=cdc";
    for (set, scheme) in [(set, Some("HTTPS")), ("monitor.enabled=true", None)] {
        let objects = chart(&["one"], set);
        let holder = pod(of_kind(&objects, "Deployment")).expect("a pod");
        let container = containers(holder)[0];
        for probe in ["livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["scheme"].as_str(), scheme, "{probe}");
        }
        let endpoint = &of_kind(&objects, "PodMonitor")["spec"]["podMetricsEndpoints"][0];
        let lower = scheme.map(str::to_lowercase);
        assert_eq!(endpoint["scheme"].as_str(), lower.as_deref());
        let name = endpoint["tlsConfig"]["serverName"].as_str();
        assert_eq!(name, scheme.map(|_| "cdc"));
        // The daemon reads them where they are mounted.
        let variables = container["env"].as_array().expect("variables");
        let mounts = container["volumeMounts"].as_array().expect("mounts");
        let files = variables.iter().filter(|variable| {
            variable["name"].as_str().is_some_and(|name| name.starts_with("WALTIDE_HTTP__TLS__"))
        });
        let files: Vec<&str> = files.filter_map(|file| file["value"].as_str()).collect();
        assert_eq!(files.len(), if scheme.is_some() { 2 } else { 0 });
        for file in files {
            let (directory, _) = file.rsplit_once('/').expect("a path");
            assert!(mounts.iter().any(|mount| mount["mountPath"] == directory), "{file}");
        }
    }
}

#[test]
fn another_configuration_is_another_pod() {
    let of = |set: &str| {
        let objects = chart(&["one"], set);
        let template = &of_kind(&objects, "Deployment")["spec"]["template"]["metadata"];
        template["annotations"]["checksum/config"].clone()
    };
    assert_eq!(of(""), of("http.port=9000"));
    assert_ne!(of(""), of("config.pipelines.shop.envelope=flat"));
}

#[test]
fn a_value_that_nothing_reads_is_refused() {
    for (set, word) in [
        ("replicas=2", "replicas"),
        ("standby.enable=true", "enable"),
        ("monitor.kind=Monitor", "kind"),
        ("http.port=80", "port"),
        ("secrets[0].name=x,secrets[0].as=null", "as"),
    ] {
        let said = rendered(&["one"], set).expect_err(set);
        assert!(said.contains("values") && said.contains(word), "{set}: {said}");
    }
}

#[test]
fn nothing_is_captured_that_was_not_named() {
    let said = rendered(&[], "").expect_err("no configuration");
    assert!(said.contains("give `config.pipelines`"), "{said}");
    // Maps of a chart's values are merged with a user's: an example among them would run.
    let objects = chart(&["everything"], "");
    let file = of_kind(&objects, "ConfigMap")["data"]["waltide.yaml"].clone();
    let wanted = crate::support::yaml_file(&format!("{CHART}/ci/everything-values.yaml"));
    assert_eq!(yaml(file.as_str().expect("a file")), [wanted["config"].clone()]);
}

#[test]
fn monitors_and_rules_fit_what_they_watch() {
    for (objects, kind, list) in [
        (chart(&["everything"], ""), "ServiceMonitor", "endpoints"),
        (
            chart(&["one"], "monitor.enabled=true,rules.enabled=true"),
            "PodMonitor",
            "podMetricsEndpoints",
        ),
    ] {
        let monitor = of_kind(&objects, kind);
        assert_eq!(monitor["spec"][list][0]["port"], "http");
        let selector = monitor["spec"]["selector"]["matchLabels"].as_object().expect("labels");
        let deployment = of_kind(&objects, "Deployment");
        let watched = if kind == "PodMonitor" {
            &deployment["spec"]["template"]["metadata"]["labels"]
        } else {
            &of_kind(&objects, "Service")["metadata"]["labels"]
        };
        for (label, value) in selector {
            assert_eq!(&watched[label], value, "{label}");
        }
        let rules = &of_kind(&objects, "PrometheusRule")["spec"];
        let ours = crate::support::yaml_file(crate::prometheus::RULES);
        assert_eq!(rules, &ours, "UPDATE_DOCS=1 cargo test --test deploy copies them");
    }
}
