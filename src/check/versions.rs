//! Which servers are read, and which of their releases are known to lose changes.

use super::finding::Finding;
use crate::pipeline::OLDEST_VERSION;

/// The newest release that is tested.
const NEWEST_TESTED: u32 = 18;

/// By major version: the last minor release that decodes changes with an outdated catalog while
/// publications or types are altered beside them, and so loses some. The one release that
/// mended it can run out of memory over the mend; the one after is sound.
const LOSES: [(u32, u32); 4] = [(14, 17), (15, 12), (16, 8), (17, 4)];

/// Judges a version, as in `server_version_num`.
pub(super) fn judge(number: u32, version: &str) -> Finding {
    const CHECK: &str = "source.version";
    let (major, minor) = (number / 10_000, number % 10_000);
    if number < OLDEST_VERSION {
        let what = format!("PostgreSQL {version} is not supported: 14 is the oldest that is");
        let mut finding = Finding::error(CHECK, what);
        finding.code = Some(crate::fault::Code::SourceVersion.id());
        return finding.advice("upgrade the server to PostgreSQL 14 or later");
    }
    let known = LOSES.iter().find(|(of, _)| *of == major);
    if let Some((_, last)) = known
        && minor <= last + 1
    {
        let what = if minor <= *last {
            format!(
                "PostgreSQL {version} can lose changes of a transaction that is open while a \
                 publication or a type is altered"
            )
        } else {
            format!(
                "PostgreSQL {version} can fail to decode (invalid memory alloc request size) while \
                 publications or types are altered often"
            )
        };
        let sound = format!("{major}.{}", last + 2);
        return Finding::warning(CHECK, what)
            .advice(format!("upgrade the server to PostgreSQL {sound} or a later minor release"));
    }
    if major > NEWEST_TESTED {
        return Finding::ok(CHECK, format!("PostgreSQL {version}, newer than what is tested"));
    }
    Finding::ok(CHECK, format!("PostgreSQL {version}"))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::judge;

    #[test]
    fn releases_that_lose_changes_are_warned_of_and_old_ones_refused() {
        let level = |number| judge(number, "it").level;
        assert_eq!(level(130_020), Level::Error);
        for (bad, good) in
            [(140_018, 140_019), (150_013, 150_014), (160_009, 160_010), (170_005, 170_006)]
        {
            assert_eq!((level(bad), level(good)), (Level::Warning, Level::Ok));
            let worse = judge(bad - 1, "it");
            assert!(worse.what.contains("lose changes"), "{}", worse.what);
        }
        assert_eq!((level(180_000), level(190_001)), (Level::Ok, Level::Ok));
    }
}
