//! `-pprof ADDR`: where processor time and memory go, for `go tool pprof` and for people.
//!
//! Invariants: served only where the flag asks for it, on loopback unless it names a host; nothing here shows a row, a key, a secret or an argument of the process; one
//! profile at a time, of bounded length.

#[cfg(feature = "profiling")]
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
#[cfg(feature = "profiling")]
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::runtime::Shutdown;

/// The longest profile: a connection lives for two minutes.
#[cfg(feature = "profiling")]
const LONGEST: u64 = 110;
/// As `go tool pprof` expects.
#[cfg(feature = "profiling")]
const USUAL: u64 = 30;

const INDEX: &str = "\
/debug/pprof/profile?seconds=30     processor time, for go tool pprof
/debug/pprof/flamegraph?seconds=30  the same as an SVG
/debug/pprof/folded?seconds=30      the same, one line a stack
/debug/pprof/heap                   memory of the process
/debug/pprof/threads                threads and the processor time of each
";

/// The routes. `stop` ends a profile early.
pub(super) fn router(stop: Shutdown) -> Router {
    Router::new()
        .route("/debug/pprof/", get(async || INDEX))
        .route("/debug/pprof/profile", get(profile))
        .route("/debug/pprof/flamegraph", get(flame_graph))
        .route("/debug/pprof/folded", get(folded))
        .route("/debug/pprof/heap", get(heap))
        .route("/debug/pprof/threads", get(threads))
        .with_state(stop)
}

async fn profile(State(stop): State<Shutdown>, RawQuery(query): RawQuery) -> Response {
    answer(stop, query, "application/octet-stream", Form::Protobuf).await
}

async fn flame_graph(State(stop): State<Shutdown>, RawQuery(query): RawQuery) -> Response {
    answer(stop, query, "image/svg+xml", Form::FlameGraph).await
}

async fn folded(State(stop): State<Shutdown>, RawQuery(query): RawQuery) -> Response {
    answer(stop, query, "text/plain; charset=utf-8", Form::Folded).await
}

/// How a profile is shown.
enum Form {
    Protobuf,
    FlameGraph,
    Folded,
}

#[cfg(feature = "profiling")]
async fn answer(stop: Shutdown, query: Option<String>, kind: &'static str, form: Form) -> Response {
    use crate::telemetry::profile::{self, ProfileError};

    let Some(seconds) = seconds(query.as_deref().unwrap_or_default()) else {
        let text = format!("seconds must be a number from 1 to {LONGEST}\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    };
    tracing::info!(seconds, "a profile is taken, as asked over HTTP");
    let taken = tokio::task::spawn_blocking(move || {
        let stacks = profile::take(Duration::from_secs(seconds), &|| stop.is_requested())?;
        Ok(match form {
            Form::Protobuf => stacks.protobuf(),
            Form::FlameGraph => stacks.flame_graph().into_bytes(),
            Form::Folded => stacks.folded().into_bytes(),
        })
    });
    match taken.await {
        Ok(Ok(bytes)) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        Ok(Err(error @ ProfileError::Busy)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
        }
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(not(feature = "profiling"))]
async fn answer(_: Shutdown, _: Option<String>, _: &'static str, _: Form) -> Response {
    let text = "this harmonylite was built without the feature `profiling`\n";
    (StatusCode::NOT_IMPLEMENTED, text).into_response()
}

#[cfg(feature = "profiling")]
fn seconds(query: &str) -> Option<u64> {
    let given = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("seconds="));
    let seconds = given.map_or(Some(USUAL), |text| text.parse().ok())?;
    (1..=LONGEST).contains(&seconds).then_some(seconds)
}

/// What the kernel counts, in KiB: the whole process, and what of that is the allocator's.
async fn heap() -> Response {
    const WANTED: [&str; 9] = [
        "VmPeak", "VmSize", "VmHWM", "VmRSS", "RssAnon", "RssFile", "VmData", "VmStk", "VmSwap",
    ];
    let read = tokio::task::block_in_place(|| {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let maps = std::fs::read_to_string("/proc/self/smaps")?;
        Ok::<_, std::io::Error>((status, maps))
    });
    let (status, maps) = match read {
        Ok(read) => read,
        Err(error) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response();
        }
    };
    let mut text = "# of the process, KiB\n".to_owned();
    for line in status.lines() {
        if let Some((name, value)) = line.split_once(':')
            && WANTED.contains(&name)
        {
            text.push_str(&format!(
                "{name:<10} {:>12}\n",
                value.trim().trim_end_matches(" kB")
            ));
        }
    }
    text.push_str("\n# resident by kind of mapping, KiB\n");
    for (kind, kib) in resident(&maps) {
        text.push_str(&format!("{kind:<10} {kib:>12}\n"));
    }
    text.into_response()
}

/// KiB that are resident, of `/proc/self/smaps`: the allocator's first arena, its others and thread stacks, the program, files of databases and the like.
fn resident(maps: &str) -> [(&'static str, u64); 5] {
    let mut sums = [
        ("heap", 0),
        ("anonymous", 0),
        ("program", 0),
        ("stack", 0),
        ("files", 0),
    ];
    let mut kind = 1;
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("Rss:"), Some(kib)) => {
                if let Some((_, sum)) = sums.get_mut(kind) {
                    *sum += kib.parse::<u64>().unwrap_or(0);
                }
            }
            (Some(range), Some(_)) if range.contains('-') && !range.ends_with(':') => {
                let path = words.nth(3).unwrap_or_default();
                kind = match path {
                    "[heap]" => 0,
                    "[stack]" => 3,
                    "" => 1,
                    path if path.starts_with('[') => 1,
                    path if path.contains(".so") || path.ends_with("harmonylite") => 2,
                    _ => 4,
                };
            }
            _ => {}
        }
    }
    sums
}

/// Threads by name, with processor time in seconds, the busiest first.
async fn threads() -> Response {
    let read = tokio::task::block_in_place(|| {
        let mut out: Vec<(f64, String, String)> = Vec::new();
        for entry in std::fs::read_dir("/proc/self/task")?.flatten() {
            let folder = entry.path();
            let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
            let stat = std::fs::read_to_string(folder.join("stat")).unwrap_or_default();
            // The name in brackets may hold blanks.
            let Some((_, fields)) = stat.rsplit_once(") ") else {
                continue;
            };
            let fields: Vec<&str> = fields.split(' ').collect();
            let ticks = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok());
            let used = ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0);
            let state = fields.first().copied().unwrap_or_default().to_owned();
            out.push((used / TICKS, state, name.trim().to_owned()));
        }
        Ok::<_, std::io::Error>(out)
    });
    match read {
        Ok(mut threads) => {
            threads.sort_by(|a, b| b.0.total_cmp(&a.0));
            let lines = threads
                .iter()
                .map(|(seconds, state, name)| format!("{seconds:>10.2} s  {state}  {name}\n"));
            lines.collect::<String>().into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Of the kernel's clock a second: fixed for programs on every Linux that we build for.
const TICKS: f64 = 100.0;
