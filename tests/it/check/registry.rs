//! The registry.

use waltide_stack::{RegistryOptions, Stack, Version};

use super::{Found, ORDERS, Patient};
use crate::support::Pipeline;

#[test]
fn a_registry_that_holds_nothing_up_or_is_away_is_told() {
    let database = Stack::shared().database(Version::NEWEST, "check registry");
    database.execute(ORDERS);
    let registry = RegistryOptions::new().start();
    let pipeline = Pipeline::of(&database).with("registry.url", registry.url());
    Patient::new(&database, pipeline)
        .mended("registry.compatibility", "warning", &["NONE", "curl"])
        .is_sound();
    assert_eq!(registry.call("GET", "/config", None).body["compatibilityLevel"], "BACKWARD");
    eprintln!("mode: {:?}", registry.call("GET", "/mode", None));
    let pipeline = Pipeline::of(&database).with("registry.url", registry.url());
    registry.stop();
    let found = Found::of(&pipeline);
    let wrong = found.wrong("registry.connect").expect("a finding");
    assert_eq!((&wrong["level"], &wrong["code"]), (&"error".into(), &"WT401".into()), "{wrong}");
}
