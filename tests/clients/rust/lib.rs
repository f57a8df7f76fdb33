//! Nothing: the claims are in cluster.rs.
