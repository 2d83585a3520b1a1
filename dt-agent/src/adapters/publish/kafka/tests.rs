//! The publisher without a broker.
