//! Sentences about what is copied into other people's clusters: the image, compose, chart,
//! manifests, rules, dashboard and runbook, checked by the tools that will read them.

mod chart;
mod compose;
mod dashboard;
mod image;
mod kubernetes;
mod prometheus;
mod runbook;
mod support;
