//! Bugs that the simulation's own test plants, one at a time, to see that it finds them: each leaves out one rule of the engine. Without the
//! feature `planted-bugs` every `planted!` is the constant `false` and nothing of this is compiled.

#[cfg(feature = "planted-bugs")]
pub use with_feature::{Bug, is, plant};

#[cfg(feature = "planted-bugs")]
mod with_feature {
    use std::cell::Cell;

    macro_rules! bugs {
        ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
            /// A rule that is left out.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum Bug {
                $($(#[$doc])* $name),*
            }

            impl Bug {
                /// All of them.
                pub const ALL: &[Self] = &[$(Self::$name),*];
            }
        };
    }

    bugs! {
        /// Our own batches are not folded.
        EchoSkipped,
        /// An incoming whole row that is skipped displaces nothing.
        SideEffectsSkipped,
        /// Pending cells of a row that goes stay in the log.
        NotForgotten,
        /// Every batch counts, in whatever order it comes.
        NoOrder,
        /// Two incarnations of one number are one.
        NonceIgnored,
        /// Change-log rows are known by their id alone.
        StampsIgnored,
        /// Own batches ahead of the position are not looked at.
        NoReadAhead,
        /// A whole row that is gone at the scan is not sent as a delete.
        GoneIsNothing,
        /// An update of a UNIQUE column travels as cells.
        UniqueAsCells,
        /// Rows that REPLACE removes are not captured.
        DisplacedNotCaptured,
        /// Deletes stand behind the other rows of a batch.
        DeletesLast,
        /// Rows that a batch rewrites count as standing in each other's way.
        NobodyStepsAside,
        /// What is in flight may vanish until its echo.
        NothingHeld,
        /// What is given up leaves the change log.
        GivenUpUnsaid,
        /// A batch retires everything up to its last id.
        RetiresUpToLast,
        /// The newest row of a change log is not kept.
        NewestNotKept,
        /// Pending cells are overwritten.
        CellsNotKept,
        /// Rows without a key stay in the way of what comes in.
        KeylessStays,
        /// A batch of a life that this file knows nothing of retires ids that it has yet to give.
        RetiresTheFuture,
        /// An own earlier write gives up own later ones.
        GivesWayToItself,
        /// A transaction whose BEGIN breaks off stays open.
        BeginLeftOpen,
        /// A scan that breaks off keeps its snapshot.
        SnapshotLeftOpen,
        /// Unsent cells of a row that its echo brings back are lost.
        ParkedIsLost,
        /// Sections of a batch are read in another order.
        SectionsReversed,
        /// A stream that ends before the position is read on.
        ShorterIsFine,
        /// A stream that begins behind the next message is read on.
        TrimmedIsSkipped,
        /// What stands at the position is not compared with what was folded.
        HistoryNotCompared,
        /// Of the message at the position only the bytes are compared.
        BytesAloneCompared,
        /// An incarnation is only above the one that the database knows.
        OnlyOwnIncarnation,
        /// The acknowledgement of an own batch counts everything before it as applied.
        OwnAckMovesPosition,
        /// Parts of a batch count without their commit record.
        PartsWithoutRecord,
        /// Cells that an older generation of triggers logged travel as cells.
        GenerationForgotten,
        /// What is on its way when a column is added is not sent again with that column.
        NotSentAgain,
        /// Our own batches are not folded where no table has a UNIQUE index.
        EchoSkippedWithoutUnique,
        /// Cells without a row count as pending until an echo, though no batch carries them.
        CellsWithoutRow,
        /// An echo comes to nothing even if folding an echo before it has changed something.
        SettledTooSoon,
        /// Whatever stands where a record's piece stood is taken for it.
        AnyPieceWillDo,
        /// A batch may end where one of its rows is changed again.
        CutAnywhere,
        /// A snapshot counts though what it contains of its maker's own has not come back.
        PhantomSnapshot,
        /// A snapshot does not say which change-log rows it contains.
        CoveredForgotten,
        /// A row that loses to a pending one in a restore is not logged as deleted.
        LoserNotLogged,
        /// A restore takes what is pending for nothing.
        PendingNotRestored,
        /// Cells of a row that the snapshot does not have stay pending.
        RestoreForgetsNoCells,
        /// Streams are trimmed by the positions of living nodes alone.
        TrimsPastTheSnapshot,
        /// Payload goes though a record that comes may name it.
        OpenPayloadTrimmed,
        /// A record above the cut is parted from its payload below it.
        CutPartsBatches,
        /// Payload counts as kept for a node that was silent for long.
        SilenceIgnored,
    }

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug on this thread, or takes it out.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether this bug is planted on this thread.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

/// Whether a bug is planted.
#[cfg(feature = "planted-bugs")]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is($crate::planted::Bug::$bug)
    };
}

/// Whether a bug is planted: never.
#[cfg(not(feature = "planted-bugs"))]
macro_rules! planted {
    ($bug:ident) => {
        std::convert::identity(false)
    };
}

pub(crate) use planted;
