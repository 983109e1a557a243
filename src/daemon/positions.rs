//! Positions over HTTP.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::engine::Engine;
use crate::http::{Answering, PositionAnswer, Positions};
use crate::wait::{self, Token, WaitError};

/// The engine's positions. It is not held between requests.
pub struct EnginePositions(Weak<Engine>);

impl EnginePositions {
    /// Of this engine.
    #[must_use]
    pub fn of(engine: &Arc<Engine>) -> Self {
        Self(Arc::downgrade(engine))
    }
}

impl Positions for EnginePositions {
    fn position(&self, timeout: Duration) -> Answering {
        let engine = self.0.upgrade();
        Box::pin(async move {
            let Some(engine) = engine else {
                return answer(None, Err(WaitError::Stopping));
            };
            let token = wait::committed(&engine, timeout).await;
            answer(token.as_ref().ok().copied(), token.map(|_| None))
        })
    }

    fn wait(&self, position: &str, timeout: Duration) -> Answering {
        let engine = self.0.upgrade();
        let token = position.parse::<Token>();
        Box::pin(async move {
            let token = match token {
                Ok(token) => token,
                Err(e) => return PositionAnswer::error(400, e.to_string()),
            };
            let Some(engine) = engine else {
                return answer(None, Err(WaitError::Stopping));
            };
            let reached = wait::reached(&engine, token, timeout).await;
            answer(Some(token), reached.map(Some))
        })
    }
}

/// The answer about `position`, with how far this node is.
fn answer(position: Option<Token>, result: Result<Option<Token>, WaitError>) -> PositionAnswer {
    let text = |token: Token| token.to_string();
    let folded = match &result {
        Ok(folded) => *folded,
        Err(WaitError::NotThere { at, .. }) => position.map(|p| Token { sequence: *at, ..p }),
        Err(_) => None,
    };
    PositionAnswer {
        code: match &result {
            Ok(_) => 200,
            Err(e) if e.is_bad_request() => 400,
            Err(e) if e.is_timeout() => 504,
            Err(_) => 503,
        },
        position: position.map(text),
        folded: folded.map(text),
        error: result.err().map(|e| e.to_string()),
    }
}
