//! The loop that answers other nodes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::protocol::{self, Answer, Question};
use crate::change::position::NodeId;
use crate::runtime::Backoff;
use crate::stream::Broker;

/// Questions answered at a time: a few from every node of a large cluster.
pub const AT_ONCE: usize = 64;

/// Answers questions until it is dropped. `answer` may wait as long as the question allows.
pub async fn serve<F, A>(broker: Broker, node: NodeId, answer: F)
where
    F: Fn(Question) -> A + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let answer = Arc::new(answer);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let mut questions = match broker.peer_questions(node).await {
            Ok(questions) => questions,
            Err(error) => {
                tracing::warn!(%error, "other nodes cannot ask this one; trying again");
                tokio::time::sleep(backoff.next_wait()).await;
                continue;
            }
        };
        let mut answering = JoinSet::new();
        loop {
            let question = tokio::select! {
                Some(_) = answering.join_next() => continue,
                question = questions.next() => question,
            };
            let Some(question) = question else { break };
            backoff.reset();
            let busy = answering.len() >= AT_ONCE;
            let answer = Arc::clone(&answer);
            let respond = async move {
                let reply = match protocol::decode(&question.payload) {
                    Ok(_) if busy => Answer::Refused {
                        reason: "it is asked too much at once: try again in a moment".to_owned(),
                    },
                    Ok(asked) => answer(asked).await,
                    Err(error) => Answer::Refused {
                        reason: error.to_string(),
                    },
                };
                question.answer(protocol::encode(&reply).into()).await;
            };
            if busy {
                respond.await;
            } else {
                answering.spawn(respond);
            }
        }
        // The subscription ended; those that follow must not do so in a circle.
        tokio::time::sleep(backoff.next_wait()).await;
    }
}
