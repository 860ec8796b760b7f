//! What files are left by a kill at any byte, and what is made of them.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("waltide-schemas-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn open(&self) -> Directory {
        Directory::at(self.0.clone())
    }

    fn log(&self) -> PathBuf {
        self.0.join("registrations.jsonl")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn schema(number: u32) -> String {
    format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"f{number}","type":["null","int"],"default":null}}]}}"#
    )
}

#[track_caller]
fn given(directory: &Directory, subject: &str, number: u32) -> u32 {
    directory.register(subject, &schema(number)).expect("files").expect("a schema")
}

#[test]
fn a_kill_at_any_byte_of_the_log_takes_nothing_that_was_told() {
    let whole = Temporary::new();
    let ids: Vec<u32> = (0..4).map(|number| given(&whole.open(), "s", number)).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    let log = fs::read(whole.log()).expect("the log");
    for cut in 0..=log.len() {
        // The schemas are there before their lines, and the next one half written.
        fs::write(whole.log(), &log[..cut]).expect("a log");
        fs::write(whole.0.join("new.avsc"), "{\"type\":").expect("a file");
        let directory = whole.open();
        let told = log[..cut].iter().filter(|byte| **byte == b'\n').count();
        for (number, id) in (0..).zip(&ids[..told]) {
            assert_eq!(directory.text(*id), Ok(Some(schema(number))), "cut at {cut}");
        }
        // What nobody was told of gets an id that nothing else had.
        let new = given(&directory, "s", 9);
        assert!(!ids.contains(&new), "cut at {cut}: id {new} again");
        let again = whole.open();
        assert_eq!(given(&again, "s", 9), new);
        let versions = again.look(|book| book.versions("s").map(|all| all.len()));
        assert_eq!(versions, Ok(Some(told + 1)), "cut at {cut}");
        fs::remove_file(whole.0.join(format!("{new}.avsc"))).expect("the file of this round");
    }
}

#[test]
fn what_was_changed_behind_its_back_is_told_and_not_followed() {
    let damaged = |change: &dyn Fn(&Temporary)| {
        let there = Temporary::new();
        given(&there.open(), "s", 1);
        given(&there.open(), "s", 2);
        change(&there);
        let refused = there.open().register("s", &schema(3));
        let Err(Trouble::Damaged { reason }) = refused else { panic!("{refused:?}") };
        reason
    };
    let other = |there: &Temporary| fs::write(there.0.join("1.avsc"), schema(7)).expect("a file");
    assert!(damaged(&other).contains("id 1 is not the one that was registered"));
    let gone = |there: &Temporary| fs::remove_file(there.0.join("2.avsc")).expect("the file");
    assert!(damaged(&gone).contains("id 2 is missing"));
    let torn = |there: &Temporary| {
        let log = fs::read_to_string(there.log()).expect("the log");
        fs::write(there.log(), log.replacen("\"subject\"", "\"sub", 1)).expect("a log");
    };
    assert!(damaged(&torn).contains("no line of it at byte 0"));
}

#[test]
fn a_directory_that_is_put_back_while_it_is_used_is_noticed() {
    let there = Temporary::new();
    let directory = there.open();
    given(&directory, "s", 1);
    let before = fs::read(there.log()).expect("the log");
    given(&directory, "s", 2);
    fs::write(there.log(), before).expect("a log");
    let refused = directory.register("s", &schema(3));
    assert!(matches!(refused, Err(Trouble::Damaged { .. })), "{refused:?}");
    // Who begins anew believes what is there, and still gives no id twice.
    assert_eq!(given(&there.open(), "s", 3), 3);
}

#[test]
fn looking_makes_nothing() {
    let there = Temporary::new();
    assert_eq!(there.open().look(|book| book.subjects().count()), Ok(0));
    assert_eq!(there.open().writable(), Ok(()));
    assert!(!there.0.exists());
    given(&there.open(), "s", 1);
    assert_eq!(there.open().writable(), Ok(()));
    let nowhere = Directory::at(there.0.join("not/there"));
    assert!(nowhere.writable().is_err());
    let refused = nowhere.register("s", &schema(1));
    assert!(matches!(refused, Err(Trouble::Io { .. })), "{refused:?}");
}

#[test]
fn another_writer_is_waited_for_and_then_named() {
    let there = Temporary::new();
    given(&there.open(), "s", 1);
    let lock = files::lock(&there.0).expect("nobody else");
    let refused = there.open().register("s", &schema(2));
    let Err(Trouble::Io { reason }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("another process has held"), "{reason}");
    // Whoever asks only for what is there waits for nobody.
    assert_eq!(given(&there.open(), "s", 1), 1);
    drop(lock);
    assert_eq!(given(&there.open(), "s", 2), 2);
}
