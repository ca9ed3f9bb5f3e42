//! A part of a document that its copies share until one of them changes it.
//!
//! Every command edits a copy of the policy, and most change one limit among lists of many thousand: what is the same in
//! two documents because one is made from the other is known to be so without a look at it.

use serde::{Serialize, Serializer};
use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// The part. A change through `DerefMut` is this copy's alone.
#[derive(Debug, Default)]
pub struct Shared<T>(Arc<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || *self.0 == *other.0
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T> From<T> for Shared<T> {
    fn from(part: T) -> Self {
        Self(Arc::new(part))
    }
}

impl<T: FromIterator<I>, I> FromIterator<I> for Shared<T> {
    fn from_iter<A: IntoIterator<Item = I>>(items: A) -> Self {
        Self::from(items.into_iter().collect::<T>())
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_same_until_it_is_changed_and_the_original_stays() {
        let original = Shared::from(vec![1, 2]);
        let mut copy = original.clone();
        assert_eq!(original, copy);
        copy.push(3);
        assert_eq!((&*original, &*copy), (&vec![1, 2], &vec![1, 2, 3]));
        assert_ne!(original, copy);
    }
}
