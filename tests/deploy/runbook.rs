//! The runbook: a section for each alert, and an alert for each section.

use std::collections::BTreeSet;

use crate::prometheus::alerts;
use crate::support::text;

const RUNBOOK: &str = "docs/runbook.md";

/// The sections under `## Alerts`, with what stands in them.
fn sections(page: &str) -> Vec<(&str, &str)> {
    let (_, rest) = page.split_once("\n## Alerts\n").expect("a part about alerts");
    let part = rest.split("\n## ").next().unwrap_or_default();
    let sections = part.split("\n### ").skip(1);
    sections.map(|section| section.split_once('\n').expect("a heading and a text")).collect()
}

#[test]
fn every_alert_has_a_section_and_every_section_an_alert() {
    let page = text(RUNBOOK);
    let written: Vec<&str> = sections(&page).into_iter().map(|(name, _)| name).collect();
    let alerts = alerts();
    let fired: Vec<&str> =
        alerts.iter().map(|alert| alert["alert"].as_str().expect("a name")).collect();
    assert_eq!(written, fired, "in the order of the rules");
}

#[test]
fn every_section_says_what_it_means_how_to_look_what_to_do_and_what_never_to_do() {
    let page = text(RUNBOOK);
    for (name, section) in sections(&page) {
        let mut from = 0;
        for part in ["**Meaning.** ", "**Look.** ", "**Do.** ", "**Never.** "] {
            let at = section[from..].find(part);
            let at = at.unwrap_or_else(|| panic!("{name}: no {part}, or not in its place"));
            from += at + part.len();
            let says = section[from..].lines().next().unwrap_or_default();
            assert!(says.len() > 5, "{name}: {part} says nothing");
        }
    }
}

#[test]
fn codes_that_it_names_exist_and_those_that_stop_a_pipeline_are_named() {
    use waltide::fault::{Class, Code};
    let page = text(RUNBOOK);
    let known: BTreeSet<&str> = Code::ALL.iter().map(|code| code.id()).collect();
    let words = page.split(|letter: char| !letter.is_ascii_alphanumeric());
    for code in words.filter(|word| word.starts_with("WT") && word.len() == 5) {
        assert!(known.contains(code), "there is no {code}");
    }
    // "WT222 to WT224" names the one between as well.
    let sections = sections(&page);
    let (_, stopped) =
        sections.iter().find(|(name, _)| *name == "WaltideStopped").expect("the section");
    let (_, list) = stopped.split_once("has the code (").expect("a list of codes");
    let list = list.split(')').next().unwrap_or_default().replace('\n', " ");
    let mut named = BTreeSet::new();
    for item in list.split([',']).flat_map(|item| item.split(" or ")) {
        let (first, last) = item.trim().split_once(" to ").unwrap_or((item.trim(), item.trim()));
        let within = |code: &&Code| (first..=last).contains(&code.id());
        named.extend(Code::ALL.iter().filter(within).map(|code| code.id()));
    }
    let stop = Code::ALL.iter().filter(|code| code.class() == Class::Stop);
    assert_eq!(named, stop.map(|code| code.id()).collect(), "codes that stop a pipeline");
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    for page in ["docs/runbook.md", "docs/deployment.md", "README.md", "CONTRIBUTING.md"] {
        let text = text(page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if file.contains("://") {
                continue;
            }
            let place = std::path::Path::new(page).with_file_name(file);
            let place = if file.is_empty() { page.into() } else { place };
            assert!(crate::support::path(&place).exists(), "{page}: {target}");
            if anchor.is_empty() {
                continue;
            }
            let there = crate::support::text(&place).to_lowercase();
            let heading = anchor.replace('-', " ");
            assert!(there.contains(&format!("# {heading}")), "{target}");
        }
    }
}
