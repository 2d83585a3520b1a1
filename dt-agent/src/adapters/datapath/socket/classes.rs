//! What the classes of probes are on the wire.

use super::template::{Padding, Template};
use crate::engine::mix::Class;

/// What probes of each class have in common.
#[derive(Debug)]
pub(super) struct Classes(Vec<ClassBytes>);

#[derive(Debug)]
pub(super) struct ClassBytes {
    pub dscp: u8,
    pub padding: Padding,
}

impl Classes {
    pub(super) fn new(classes: &[Class]) -> Self {
        let bytes = classes.iter().map(|class| ClassBytes {
            dscp: class.dscp,
            padding: Padding::new(class.payload_bytes),
        });
        Self(bytes.collect())
    }

    pub(super) fn get(&self, class: u8) -> Option<&ClassBytes> {
        self.0.get(usize::from(class))
    }

    /// What follows the head of a probe to this target.
    pub(super) fn padding(&self, class: u8, template: Template) -> &[u8] {
        self.get(class)
            .map_or(&[], |class| class.padding.behind(template))
    }
}
