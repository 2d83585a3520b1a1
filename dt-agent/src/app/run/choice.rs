//! What the log says of how peers are chosen.

use crate::engine::pinglist::Shape;

/// The ways of choosing that an operator wants to know of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Choice {
    /// All members.
    All,
    /// By rack and zone.
    Graphs,
    /// The same, and the peer limit leaves some of them out.
    CutGraphs,
}

impl Choice {
    /// Says how peers are chosen now when that is another way than before, and not each time that there are more or less.
    pub(super) fn tell(&mut self, shape: Shape, limit: usize) {
        let now = Self::of(shape);
        if std::mem::replace(self, now) == now {
            return;
        }
        match shape {
            Shape::Full => tracing::info!(limit, "All other members are probed again."),
            Shape::Graphs(graphs) => {
                let others = graphs.others;
                tracing::info!(
                    limit,
                    others,
                    "There are more members than the peer limit. Probed are {graphs}."
                );
            }
        }
        if now == Self::CutGraphs {
            tracing::warn!(
                limit,
                "The peer limit leaves out whom racks and zones want to be probed: \
                 give all nodes a rack and a zone, or raise --peer-limit."
            );
        }
    }

    fn of(shape: Shape) -> Self {
        match shape {
            Shape::Full => Self::All,
            Shape::Graphs(graphs) if graphs.is_cut() => Self::CutGraphs,
            Shape::Graphs(_) => Self::Graphs,
        }
    }
}
