//! What a pull consumer sends: messages, whose position stands in their reply subject, and status messages.
//!
//! The reply subject is `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<nanos>.<pending>`, or, from
//! servers that name their domain and account, `$JS.ACK.<domain>.<account>.<stream>.…` with a token more at the end.

use async_nats::{Message, StatusCode};

use super::broker::StoredMessage;
use crate::change::position::Sequence;

/// One thing that arrived.
#[derive(Debug)]
pub(super) enum Delivery {
    /// A message of the stream.
    Message(Delivered),
    /// The server is alive and has sent this many messages to the consumer.
    Heartbeat { sent: u64 },
    /// A pull request ended with this many messages not sent (`None`: the server does not say), because it expired or because
    /// the next message does not fit into the bytes that it asked for.
    PullEnded {
        unsent: Option<usize>,
        out_of_bytes: bool,
    },
    /// The consumer is gone or cannot go on; the text says why.
    ConsumerLost(String),
}

/// A message and its place in consumer and stream.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) stored: StoredMessage,
    /// Rises by one from 1 with each message that the consumer sends.
    pub(super) consumer_sequence: u64,
    /// Messages in the stream after this one.
    pub(super) pending: u64,
}

/// `408 Request Timeout`: the pull request expired.
const EXPIRED: u16 = 408;
/// `409`: the pull request or its consumer ended; the description says which.
const CONFLICT: u16 = 409;

pub(super) fn read(message: Message) -> Delivery {
    let Some(status) = message.status else {
        return stored(message);
    };
    let header = |name: &str| {
        message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(name))
            .and_then(|value| value.as_str().parse::<u64>().ok())
    };
    let description = message.description.as_deref().unwrap_or_default();
    let unsent =
        header("Nats-Pending-Messages").map(|unsent| usize::try_from(unsent).unwrap_or(usize::MAX));
    match status.as_u16() {
        100 => Delivery::Heartbeat {
            sent: header("Nats-Last-Consumer").unwrap_or(0),
        },
        EXPIRED => Delivery::PullEnded {
            unsent,
            out_of_bytes: false,
        },
        CONFLICT if description.eq_ignore_ascii_case("Message Size Exceeds MaxBytes") => {
            Delivery::PullEnded {
                unsent,
                out_of_bytes: true,
            }
        }
        // All messages were sent before all bytes were used up.
        CONFLICT if description.eq_ignore_ascii_case("Batch Completed") => Delivery::PullEnded {
            unsent: Some(unsent.unwrap_or(0)),
            out_of_bytes: false,
        },
        // A server that shuts down ends the pull requests of its clients; so does one that gives up the consumer's leadership.
        _ => Delivery::ConsumerLost(lost(status, description)),
    }
}

fn lost(status: StatusCode, description: &str) -> String {
    if status == StatusCode::NO_RESPONDERS {
        "the consumer is gone".to_owned()
    } else {
        format!("{description} ({status})")
    }
}

fn stored(message: Message) -> Delivery {
    let Some(position) = message
        .reply
        .as_ref()
        .and_then(|reply| position(reply.as_str()))
    else {
        return Delivery::ConsumerLost(
            "a message came without a position in its reply subject".to_owned(),
        );
    };
    Delivery::Message(Delivered {
        stored: StoredMessage {
            sequence: Sequence(position.stream),
            payload: message.payload,
            timestamp_nanos: position.nanos,
        },
        consumer_sequence: position.consumer,
        pending: position.pending,
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Position {
    stream: u64,
    consumer: u64,
    nanos: u64,
    pending: u64,
}

fn position(reply: &str) -> Option<Position> {
    let rest = reply.strip_prefix("$JS.ACK.")?;
    let before = match rest.split('.').count() {
        // stream, consumer, delivered
        7 => 3,
        // domain, account, stream, consumer, delivered; a token may follow
        9.. => 5,
        _ => return None,
    };
    let mut numbers = rest.split('.').skip(before).map(str::parse::<u64>);
    let mut number = || numbers.next()?.ok();
    Some(Position {
        stream: number()?,
        consumer: number()?,
        nanos: number()?,
        pending: number()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_reply_subject_are_read() {
        let expected = Position {
            stream: 12,
            consumer: 3,
            nanos: 1_700_000_000_000_000_001,
            pending: 9,
        };
        for reply in [
            "$JS.ACK.s.c.1.12.3.1700000000000000001.9",
            "$JS.ACK._.hash.s.c.1.12.3.1700000000000000001.9",
            "$JS.ACK.dom.hash.s.c.1.12.3.1700000000000000001.9.random",
        ] {
            assert_eq!(position(reply).as_ref(), Some(&expected), "{reply}");
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for reply in ["", "_INBOX.a", "$JS.ACK.s.c.1.2", "$JS.ACK.s.c.1.x.3.4.5"] {
            assert_eq!(position(reply), None, "{reply}");
        }
    }
}
