//! What the reconciler's thread is told by the others: news of the input, of the node, and questions.

use crate::inspect::{Answer, Question};
use crate::state::{Change, Node, Problem};
use std::time::{Instant, SystemTime};
use tokio::sync::oneshot;

/// What the wheel is told.
#[derive(Debug)]
pub enum Message {
    /// The input changed. The first of these has all of it.
    News(News),
    /// The node's facts.
    Node(Node),
    /// Somebody asks why.
    Question(Asked),
    /// End after what came before this.
    Stop,
}

/// What is different in the input.
#[derive(Debug)]
pub struct News {
    /// In the order in which they are to be applied.
    pub changes: Vec<Change>,
    /// Everything that is wrong with the input now, if that may have changed.
    pub problems: Option<Vec<Problem>>,
    /// When it came.
    pub received: Instant,
    /// When the causes of it happened, as far as EndpointSlices tell.
    pub triggers: Vec<SystemTime>,
}

/// A question, and where its answer goes; none where there is no such Service.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub question: Question,
    /// Closed when nobody waits any more.
    pub reply: oneshot::Sender<Option<Answer>>,
}
