mod action; mod catalog; mod command; mod config; mod datasets; mod events; mod run; mod text; mod worker;
fn main(){}
