//! Rules one by one, each on a desk where every packet is placed by hand (`rules`, `replies`, `edges`); whole lives of
//! sessions on a simulated network (`sim`, `simulated`); and anything at all (`anything`).

mod anything;
mod desk;
mod edges;
mod reflector;
mod replies;
mod rules;
mod sim;
mod simulated;
