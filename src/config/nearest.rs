//! The known name that a mistyped one was most likely meant to be.

/// The candidate most like `typed`, if any is like enough to be worth proposing.
///
/// Names may have dotted sections. A name that is right but stands in the wrong section counts as near.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (section, name) = split(typed);
    candidates
        .into_iter()
        .map(|candidate| {
            let (its_section, its_name) = split(candidate);
            let by_name = strsim::osa_distance(name, its_name) * 4
                + if section == its_section { 0 } else { 1 };
            let whole = strsim::osa_distance(typed, candidate) * 4;
            (
                by_name.min(whole),
                strsim::osa_distance(typed, candidate),
                candidate,
            )
        })
        .min()
        // Half of the letters may be wrong; past that a proposal misleads.
        .filter(|(cost, _, _)| *cost <= name.chars().count() * 2)
        .map(|(_, _, candidate)| candidate)
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_misplaced_keys_are_recognised() {
        let known = [
            "db_path",
            "node_id",
            "nats",
            "nats.urls",
            "nats.user_name",
            "replication_log.shards",
            "snapshot.s3.bucket",
            "snapshot.nats.bucket",
        ];
        for (typed, expected) in [
            ("db_pth", Some("db_path")),
            ("nodeid", Some("node_id")),
            ("shards", Some("replication_log.shards")),
            ("nats.shrads", Some("replication_log.shards")),
            ("nats.url", Some("nats.urls")),
            ("natz", Some("nats")),
            ("snapshot.s4.bucket", Some("snapshot.s3.bucket")),
            ("completely_different", None),
        ] {
            assert_eq!(nearest(typed, known), expected, "{typed}");
        }
    }
}
