//! Gives every binary a run path to libtorch, so that nothing has to be set to run it, and compiles the
//! bridge to those of its operators that its C bindings leave out.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(vedm_operators)");
    let unix = std::env::var("CARGO_CFG_TARGET_FAMILY").as_deref() == Ok("unix");
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").ok();
    if unix {
        // A relocated bundle (bin/, lib/) is found first, then the libtorch that was linked against.
        println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
        if let Some(lib) = &lib {
            println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
            println!("cargo:rustc-env=VEDM_LIBTORCH_LIB={lib}");
        }
    }
    operators(lib.as_deref().map(Path::new));
}

/// The rooms of `src/native` in C++, by the headers and settings that torch-sys takes too. Without them vedm is
/// built all the same, and computes in f32 on a CPU.
fn operators(lib: Option<&Path>) {
    const SOURCES: [&str; 4] = [
        "src/native/operators.cpp",
        "src/native/attention.cpp",
        "src/native/dense.cpp",
        "src/native/gpu.cpp",
    ];
    for file in SOURCES.into_iter().chain(["src/native/bridge.h"]) {
        println!("cargo:rerun-if-changed={file}");
    }
    for name in ["LIBTORCH_INCLUDE", "LIBTORCH_CXX11_ABI"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let named = std::env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from);
    let Some(root) = named.or_else(|| lib?.parent().map(Path::to_path_buf)) else { return };
    let include = root.join("include");
    if !include.join("ATen/core/dispatch/Dispatcher.h").exists() {
        println!(
            "cargo:warning=libtorch's headers are not in {include:?}: --dtype bf16, f16 and int8 will not be served on a CPU"
        );
        return;
    }
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_string());
    let compiled = cc::Build::new()
        .cpp(true)
        .warnings(false)
        .std("c++17")
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .include(include.join("torch/csrc/api/include"))
        .include(include)
        .files(SOURCES)
        .try_compile("vedm_operators");
    match compiled {
        Ok(()) => println!("cargo:rustc-cfg=vedm_operators"),
        Err(error) => println!("cargo:warning=the C++ of src/native was left out: {error}"),
    }
}
