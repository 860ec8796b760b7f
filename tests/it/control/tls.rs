//! The endpoint over TLS: who gets an answer, and what a renewal does.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use tokio_rustls::rustls::crypto::ring;
use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Stack, Version, eventually};

use crate::cli::{Ended, waltide, waltide_in};
use crate::support::{ConfigFile, Daemon, Pipeline, Request, SOON};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("a certificate without names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("a certificate of an authority")
}

/// A directory of files for TLS, which goes away with its owner.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let name = format!("tls-{test}-{}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).expect("a directory");
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        // In one step, as tools that renew certificates do.
        let new = self.path("new");
        fs::write(&new, text).expect("a file");
        fs::rename(new, self.path(name)).expect("the same directory");
    }

    /// A certificate for the loopback address, or for the host that is named.
    fn certify(&self, by: &Authority, host: Option<&str>) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = host.map(str::to_owned).into_iter().collect();
        let mut params = CertificateParams::new(names).expect("a host's name");
        if host.is_none() {
            let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
            params.subject_alt_names.push(SanType::IpAddress(loopback));
        }
        params.not_after = rcgen::date_time_ymd(2099, 1, 1);
        let certificate = params.signed_by(&key, by).expect("a certificate");
        self.write("authority.pem", &by.pem());
        // Between the two files the daemon sees a key that does not fit, and keeps what it has.
        self.write("key.pem", &key.serialize_pem());
        self.write("certificate.pem", &certificate.pem());
    }

    /// As a daemon is told of them. Its port is in the file, as the command line looks for it there.
    fn http(&self) -> [(&'static str, Value); 2] {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let listen = free.expect("a free port").to_string();
        let files =
            json!({ "certificate": self.path("certificate.pem"), "key": self.path("key.pem") });
        [("tls", files), ("listen", listen.into())]
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// As a client of somebody else's asks that trusts these authorities and checks names.
fn ask(daemon: &Daemon, path: &str, authorities: &str) -> Result<(u16, String), String> {
    let url = format!("{}{path}", daemon.url().replace("http://", "https://"));
    // Fails where there is one already.
    let _ = ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let roots = reqwest::Certificate::from_pem_bundle(authorities.as_bytes()).expect("PEM");
        let client = reqwest::Client::builder().tls_certs_only(roots).no_proxy();
        let response = client.build().expect("a client").get(url).send().await;
        let response = response.map_err(|error| format!("{error:?}"))?;
        Ok((response.status().as_u16(), response.text().await.expect("a body")))
    })
}

#[track_caller]
fn done(ended: &Ended) -> &str {
    assert_eq!(ended.status, Some(0), "{}", ended.everything);
    &ended.out
}

#[track_caller]
fn failed(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.status, Some(1), "{}", ended.everything);
    for word in words {
        assert!(ended.everything.contains(word), "no {word:?} in: {}", ended.everything);
    }
}

#[test]
fn an_endpoint_with_a_certificate_speaks_tls_with_everybody_who_knows_it() {
    let database = Stack::shared().database(Version::NEWEST, "https");
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let (ours, other, files) = (authority("ours"), authority("other"), Files::new("speaks"));
    files.certify(&ours, None);
    let pipeline = Pipeline::of(&database);
    let own = files.path("run");
    let config = pipeline.file_with_http(&files.http());
    let config_path = config.path().to_str().expect("UTF-8").to_owned();
    let daemon = Daemon::launch_in(&own, config, &["run"]);
    eventually("the daemon is healthy, asked as the configuration says", SOON, || {
        let asked = waltide(&["healthcheck", "--config", &config_path]);
        (asked.status == Some(0)).then_some(())
    });

    for path in ["/livez", "/readyz", "/", "/api/status"] {
        assert_eq!(ask(&daemon, path, &ours.pem()).map(|answer| answer.0), Ok(200), "{path}");
    }
    let metrics = ask(&daemon, "/metrics", &ours.pem()).expect("it answers").1;
    let expiry = "\nwaltide_http_certificate_expiry_timestamp_seconds 4070908800\n";
    assert!(metrics.contains(expiry), "{metrics}");
    assert!(ask(&daemon, "/livez", &other.pem()).unwrap_err().contains("UnknownIssuer"));

    // By what the daemon has written down; by the authority; by the certificate itself.
    let url = daemon.url().replace("http://", "https://");
    let (authority, certificate) = (files.text("authority.pem"), files.text("certificate.pem"));
    done(&waltide_in(&own, &["pause"]));
    done(&waltide_in(&own, &["resume", "--url", &url]));
    for trusted in [&authority, &certificate] {
        let told = waltide(&["status", "--url", &url, "--ca-file", trusted]);
        assert!(done(&told).contains(pipeline.name()), "{}", told.out);
    }
    done(&waltide_in(&own, &["reload", "--config", &config_path]));

    // Who does not know it, and who does not speak it.
    files.write("another.pem", &other.pem());
    let told = waltide(&["status", "--url", &url, "--ca-file", &files.text("another.pem")]);
    failed(&told, &["WT106", "certificate is not known", "--ca-file"]);
    failed(&waltide(&["status", "--url", &url]), &["WT106", "certificate is not known"]);
    let told = waltide(&["status", "--url", &url, "--ca-file", &files.text("nowhere.pem")]);
    failed(&told, &["WT106", "nowhere.pem"]);
    failed(&waltide(&["status", "--url", &daemon.url()]), &["WT109", "HTTPS", "https://"]);
    let (status, body) = Request::get("/livez").send(&daemon);
    assert_eq!(status, 400);
    assert!(body.contains("this port speaks HTTPS"), "{body}");
    daemon.terminate();
    assert_eq!(fs::read_dir(own.join("waltide")).expect("its directory").count(), 0);

    let plain = pipeline.start();
    let url = plain.url().replace("http://", "https://");
    let told = waltide(&["status", "--url", &url, "--ca-file", &authority]);
    failed(&told, &["WT106", "does not speak TLS", "http://"]);
    plain.terminate();
}

#[test]
fn a_renewed_certificate_is_shown_at_once_and_a_broken_one_never() {
    let database = Stack::shared().database(Version::NEWEST, "renewal");
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let (first, second, files) = (authority("first"), authority("second"), Files::new("renewal"));
    files.certify(&first, None);
    let daemon = Pipeline::of(&database).launch_with_http(&files.http());
    let config = daemon.config().to_str().expect("UTF-8").to_owned();
    eventually("it answers", SOON, || ask(&daemon, "/livez", &first.pem()).ok());

    files.certify(&second, None);
    assert_eq!(ask(&daemon, "/livez", &second.pem()).map(|answer| answer.0), Ok(200));
    assert!(ask(&daemon, "/livez", &first.pem()).is_err());
    // For another name, as in a pod whose probe asks at the loopback address.
    files.certify(&first, Some("waltide.example"));
    assert!(ask(&daemon, "/livez", &first.pem()).unwrap_err().contains("NotValidForName"));
    done(&waltide(&["healthcheck", "--live", "--config", &config]));
    files.certify(&second, None);
    assert!(ask(&daemon, "/livez", &second.pem()).is_ok());

    let refused = |what: &str| {
        let events = daemon.events();
        let said = events.iter().filter(|event| event["code"] == "WT117");
        let said = said.filter(|event| event["message"].as_str().expect("a text").contains(what));
        said.count()
    };
    let key = fs::read_to_string(files.path("key.pem")).expect("it is there");
    let another = KeyPair::generate().expect("a key").serialize_pem();
    for (text, what) in [("no key\n", "cannot be used"), (&another, "do not go together")] {
        files.write("key.pem", text);
        for _ in 0..3 {
            assert!(ask(&daemon, "/livez", &second.pem()).is_ok());
        }
        eventually("it is said", SOON, || (refused(what) > 0).then_some(()));
        assert_eq!(refused(what), 1, "once for each change");
    }
    fs::remove_file(files.path("key.pem")).expect("it is there");
    assert!(ask(&daemon, "/livez", &second.pem()).is_ok());
    files.write("key.pem", &key);
    assert!(ask(&daemon, "/livez", &second.pem()).is_ok());
    daemon.terminate();
}

#[test]
fn a_daemon_that_cannot_use_its_certificate_says_so_and_does_not_start() {
    let database = Stack::shared().database(Version::NEWEST, "no https");
    let (ours, files) = (authority("ours"), Files::new("unusable"));
    files.certify(&ours, None);
    let pipeline = Pipeline::of(&database);
    let starts = || {
        let config: ConfigFile = pipeline.file_with_http(&files.http());
        waltide(&["run", "--config", config.path().to_str().expect("UTF-8")])
    };
    files.write("key.pem", &KeyPair::generate().expect("a key").serialize_pem());
    let both = files.text("certificate.pem");
    failed(&starts(), &["WT117", "do not go together", &both, &files.text("key.pem"), "http.tls"]);
    files.write("certificate.pem", "nothing\n");
    failed(&starts(), &["WT117", &both, "no certificate in PEM form"]);
    fs::remove_file(files.path("key.pem")).expect("it is there");
    files.write("certificate.pem", &ours.pem());
    failed(&starts(), &["WT117", &files.text("key.pem"), "No such file"]);
}
