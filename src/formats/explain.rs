//! A page that explains a text: what the model saw, where it looked, what it could have said instead.

use std::fmt::Write;

use super::{confidence, escape};

/// What a page tells. Pictures are the bytes of PNG files.
#[derive(Clone, Debug, Default)]
pub struct Explained {
    /// The picture's name, with page and line where it has them.
    pub name: String,
    pub text: String,
    /// The text that a placeholder stands for.
    pub rejected: Option<String>,
    pub confidence: f64,
    pub finish: String,
    pub model: String,
    /// Width and height of the page in the file.
    pub size: (usize, usize),
    /// What was given, perhaps reduced.
    pub given: Vec<u8>,
    /// What the image processor made of it.
    pub seen: Vec<u8>,
    /// Width and height of it.
    pub seen_size: (usize, usize),
    /// Part of the seen picture's width and height that a map covers; above 1 where it was padded.
    pub covered: (f64, f64),
    pub tokens: Vec<ExplainedToken>,
}

/// One token of the text.
#[derive(Clone, Debug, Default)]
pub struct ExplainedToken {
    pub token: String,
    pub id: i64,
    pub logprob: f64,
    /// The likeliest tokens in its place, the token itself among them: token, id, log-probability.
    pub best: Vec<(String, i64, f64)>,
    /// Of the last decoder layer, and of all.
    pub last: Map,
    pub mean: Map,
}

/// Where a token looked.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// A pixel a state, more opaque where there is more attention.
    pub picture: Vec<u8>,
    /// The largest share of one place.
    pub peak: f64,
    /// The share of states that have no place in the picture, such as a class token.
    pub elsewhere: f64,
}

const STYLE: &str = "\
:root{color-scheme:light dark;font:16px/1.45 system-ui,sans-serif}
body{max-width:90rem;margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.2rem;overflow-wrap:anywhere}
.text{font-size:1.4rem;white-space:pre-wrap;overflow-wrap:anywhere;margin:.5rem 0}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem}
dd{margin:0;overflow-wrap:anywhere}
figure{margin:0}
.pictures{display:flex;flex-wrap:wrap;gap:1rem;margin:1rem 0}
.pictures img{max-width:min(42rem,100%);max-height:26rem;border:1px solid #8888}
.strip a{display:inline-block;padding:0 .25rem;margin:.1rem;border:1px solid #8888;border-radius:.2rem;\
color:inherit;text-decoration:none;white-space:pre;font-family:ui-monospace,monospace}
ol.steps{list-style:none;padding:0;display:grid;gap:1rem}
ol.steps>li{border:1px solid #8888;border-radius:.3rem;padding:.5rem;min-width:0}
li:target{grid-column:1/-1;outline:2px solid}
li:target .seen{max-width:60rem}
h2{font-size:1rem;margin:.4rem 0;white-space:pre-wrap;overflow-wrap:anywhere;font-family:ui-monospace,monospace}
table{border-collapse:collapse;font-size:.85rem}
td,th{padding:0 .6rem 0 0;text-align:left;font-weight:normal}
td:last-child{text-align:right;font-variant-numeric:tabular-nums}
tr.chosen{font-weight:bold}
td:first-child{white-space:pre;font-family:ui-monospace,monospace}
small{opacity:.75}
.seen{position:relative;overflow:hidden}
.seen img{position:absolute;left:0;top:0;image-rendering:pixelated}
#mean:checked~.steps .last,#last:checked~.steps .mean,#none:checked~.steps .map{display:none}
";

/// A whole HTML document with everything in it: no scripts, and nothing that a browser would fetch.
pub fn explain(page: &Explained) -> String {
    let mut out =
        String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    let name = escape(&page.name);
    // Writing to a string can't fail; the results are let go.
    let _ = write!(
        out,
        "<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n\
         <meta name=\"generator\" content=\"vedm {}\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{name}</title>\n<style>\n{STYLE}",
        env!("CARGO_PKG_VERSION"),
    );
    let (width, height) = page.seen_size;
    // Lines of text are wide and low.
    let least = if width > 2 * height { 26 } else { 15 };
    let _ = write!(
        out,
        ".seen{{aspect-ratio:{width}/{height};background:url({}) 0 0/100% 100%}}\n\
         .seen img{{width:{:.4}%;height:{:.4}%}}\n\
         ol.steps{{grid-template-columns:repeat(auto-fill,minmax(min({least}rem,100%),1fr))}}\n\
         </style>\n</head>\n<body>\n<h1>{name}</h1>\n",
        data_uri(&page.seen),
        page.covered.0 * 100.0,
        page.covered.1 * 100.0,
    );
    write_facts(&mut out, page);
    write_pictures(&mut out, page);
    write_tokens(&mut out, page);
    out.push_str("</body>\n</html>\n");
    out
}

fn write_facts(out: &mut String, page: &Explained) {
    let _ = writeln!(out, "<p class=\"text\" id=\"text\">{}</p>\n<dl>", escape(&page.text));
    let mut fact = |name: &str, id: &str, value: &str| {
        let _ = writeln!(out, "<dt>{name}</dt><dd id=\"{id}\">{}</dd>", escape(value));
    };
    if let Some(rejected) = &page.rejected {
        fact("replaced text", "rejected_text", rejected);
    }
    if page.confidence.is_finite() {
        fact("confidence", "confidence", &format!("{:.6}", confidence(page.confidence)));
    }
    fact("finish reason", "finish_reason", &page.finish);
    fact("tokens", "new_tokens", &page.tokens.len().to_string());
    fact("model", "model", &page.model);
    out.push_str("</dl>\n");
}

fn write_pictures(out: &mut String, page: &Explained) {
    let (width, height) = page.size;
    let (seen_width, seen_height) = page.seen_size;
    let _ = writeln!(
        out,
        "<div class=\"pictures\">\n\
         <figure><img id=\"given\" alt=\"the picture as given\" src=\"{}\">\n\
         <figcaption>as given, from {width} x {height} pixels</figcaption></figure>\n\
         <figure><img id=\"seen\" alt=\"what the model saw\" src=\"{}\">\n\
         <figcaption>as the model saw it, {seen_width} x {seen_height} pixels</figcaption></figure>\n\
         </div>",
        data_uri(&page.given),
        data_uri(&page.seen),
    );
}

fn write_tokens(out: &mut String, page: &Explained) {
    if page.tokens.is_empty() {
        out.push_str("<p>No token was generated.</p>\n");
        return;
    }
    out.push_str("<p class=\"strip\">");
    for (index, token) in page.tokens.iter().enumerate() {
        let probability = token.logprob.exp();
        // The less likely, the redder.
        let doubt = (1.0 - confidence(probability)) * 60.0;
        let _ = write!(
            out,
            "<a href=\"#t{}\" title=\"{}\" \
             style=\"background:color-mix(in srgb,red {doubt:.0}%,transparent)\">{}</a>",
            index + 1,
            percent(probability),
            escape(&token.token)
        );
    }
    out.push_str(
        "</p>\n<p>Where the model looked as it chose each token: cross-attention, the mean over heads, each \
         picture scaled to its own peak.</p>\n\
         <input type=\"radio\" name=\"layers\" id=\"last\" checked><label for=\"last\">last layer</label>\n\
         <input type=\"radio\" name=\"layers\" id=\"mean\"><label for=\"mean\">mean of all layers</label>\n\
         <input type=\"radio\" name=\"layers\" id=\"none\"><label for=\"none\">picture alone</label>\n\
         <ol class=\"steps\">\n",
    );
    for (index, token) in page.tokens.iter().enumerate() {
        write_token(out, index + 1, token);
    }
    out.push_str("</ol>\n");
}

fn write_token(out: &mut String, number: usize, token: &ExplainedToken) {
    let (name, probability) = (escape(&token.token), percent(token.logprob.exp()));
    let _ = write!(
        out,
        "<li class=\"token\" id=\"t{number}\" data-id=\"{}\" data-logprob=\"{:.6}\">\n<div class=\"seen\">",
        token.id, token.logprob
    );
    for (class, map) in [("last", &token.last), ("mean", &token.mean)] {
        let _ =
            write!(out, "<img class=\"map {class}\" alt=\"\" src=\"{}\">", data_uri(&map.picture));
    }
    let _ = write!(out, "</div>\n<h2>{number}. {name} {probability}</h2>\n<small>");
    for (class, map) in [("last", &token.last), ("mean", &token.mean)] {
        let peak = percent(map.peak);
        let _ = write!(out, "<span class=\"map {class}\">peak {peak}");
        if map.elsewhere >= 5e-4 {
            let _ = write!(out, ", {} outside the picture", percent(map.elsewhere));
        }
        out.push_str("</span>");
    }
    out.push_str("</small>\n<table>\n");
    for (best, id, logprob) in &token.best {
        let class = if *id == token.id { " class=\"chosen\"" } else { "" };
        let _ = writeln!(
            out,
            "<tr{class} data-id=\"{id}\" data-logprob=\"{logprob:.6}\"><td>{}</td><td>{id}</td><td>{}</td></tr>",
            escape(best),
            percent(logprob.exp())
        );
    }
    out.push_str("</table>\n</li>\n");
}

fn percent(probability: f64) -> String {
    format!("{:.1} %", probability * 100.0)
}

fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64(png))
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at > group.len() { '=' } else { char::from(letter) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 4648.
    #[test]
    fn base64_is_the_rfcs() {
        let table = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, expected) in table {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
        assert_eq!(base64(&[0xFB, 0xFF]), "+/8=");
    }

    #[test]
    fn a_page_holds_everything_and_fetches_nothing() {
        let best = vec![("<b>".to_string(), 7, -0.5), ("c".to_string(), 8, -1.25)];
        let token = ExplainedToken {
            token: "<b>".into(),
            id: 7,
            logprob: -0.5,
            best,
            ..Default::default()
        };
        let page = explain(&Explained {
            name: "a&b.png".into(),
            text: "x\u{1b}<y>".into(),
            confidence: 0.5,
            finish: "eos".into(),
            tokens: vec![token],
            ..Default::default()
        });
        for part in [
            "<title>a&amp;b.png</title>",
            "id=\"text\">x\u{fffd}&lt;y&gt;</p>",
            "<dd id=\"finish_reason\">eos</dd>",
            "<dd id=\"confidence\">0.500000</dd>",
            "id=\"t1\" data-id=\"7\" data-logprob=\"-0.500000\"",
            "<tr class=\"chosen\" data-id=\"7\" data-logprob=\"-0.500000\"><td>&lt;b&gt;</td>",
            "<tr data-id=\"8\" data-logprob=\"-1.250000\"><td>c</td><td>8</td><td>28.7 %</td></tr>",
        ] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        for part in ["<script", "http://", "https://", "<link", "@import"] {
            assert!(!page.contains(part), "{part} is in {page}");
        }
    }
}
