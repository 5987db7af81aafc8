//! The language as its users meet it: whole texts checked against a small catalog.

mod catalog;
mod checkpoints;
mod diagnostics;
mod editor;
mod families;
mod grammar;
mod layout;
mod robust;
mod summaries;
mod values;
mod verdicts;
