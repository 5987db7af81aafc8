//! Link arguments that make the worker find libtorch where it was built against, and any other one on LD_LIBRARY_PATH.
//!
//! RUNPATH (not RPATH) lets LD_LIBRARY_PATH win; keeping `libtorch.so` as NEEDED lets the full wheel's libtorch bring
//! the CUDA libraries in, so that a binary built against the CPU folder runs on a CUDA machine unchanged.
fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=HARNESS_LIBTORCH=unknown");
    let Ok(libtorch) = std::env::var("LIBTORCH") else {
        println!("cargo:warning=LIBTORCH is not set; run `make libtorch` first");
        return;
    };
    if let Ok(version) = std::fs::read_to_string(std::path::Path::new(&libtorch).join("build-version")) {
        println!("cargo:rustc-env=HARNESS_LIBTORCH={}", version.trim());
    }
    // torch-sys links libtorch and the C++ library; this adds what tch lacks.
    println!("cargo:rerun-if-changed=shim");
    let include = std::path::Path::new(&libtorch).join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // Before libtorch's: names that its header of the Gloo backend wants and no distribution has.
        .include("shim")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        .warnings(false)
        .opt_level(1)
        .file("shim/shim.cpp")
        .file("shim/c10d.cpp")
        .compile("harness_shim");
    let lib = std::path::absolute(std::path::Path::new(&libtorch).join("lib")).expect("LIBTORCH is a path");
    let lib = lib.display();
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags,-rpath,{lib}");
    println!("cargo:rustc-link-search=native={lib}");
    println!("cargo:rustc-link-arg=-Wl,--push-state,--no-as-needed,-ltorch,--pop-state");
}
