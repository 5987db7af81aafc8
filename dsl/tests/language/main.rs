//! The language as its users meet it: whole texts checked against a small catalog.

mod catalog;
mod checkpoints;
mod choices;
mod diagnostics;
mod editor;
mod families;
mod grammar;
mod layout;
mod promises;
mod robust;
mod summaries;
mod textmate;
mod values;
mod verdicts;
