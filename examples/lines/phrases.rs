//! Prices, dates, codes, addresses and names: what the lines of receipts and forms are made of.

use std::ops::Range;

use fastrand::Rng;

use crate::text::Corpus;

const BUSINESS: &str = "TOTAL;SUBTOTAL;SUB TOTAL;GRAND TOTAL;TOTAL AMOUNT;CASH;CHANGE;CARD;TAX;GST;VAT;SALES TAX;\
SERVICE CHARGE;ROUNDING;ROUNDING ADJ;DISCOUNT;AMOUNT;AMT;QTY;ITEM;PRICE;UNIT PRICE;DESCRIPTION;DATE;TIME;INVOICE;\
TAX INVOICE;INVOICE NO;RECEIPT;RECEIPT NO;BILL NO;ORDER NO;DOC NO;REF NO;CASHIER;COUNTER;TABLE;TABLE NO;GUEST;\
MEMBER;CUSTOMER;CUSTOMER COPY;MERCHANT ID;TERMINAL;TID;MID;APPROVAL CODE;TRACE NO;BATCH NO;TEL;PHONE;FAX;EMAIL;\
WEBSITE;REG NO;COMPANY NO;CO. REG;VAT NO;THANK YOU;THANK YOU FOR SHOPPING WITH US;PLEASE COME AGAIN;NO REFUND;\
GOODS SOLD ARE NOT RETURNABLE;NO EXCHANGE;KEEP THIS RECEIPT;HAVE A NICE DAY;WELCOME;PAID;BALANCE;BALANCE DUE;\
DUE DATE;PAYMENT;PAYMENT MODE;PAGE;SALES PERSON;SERVED BY;STATION;POS;OPEN;CLOSED;INCLUSIVE OF TAX;TAX SUMMARY;\
TAX CODE;NET;GROSS;TOTAL QTY;NO. OF ITEMS;ITEMS SOLD;SAVINGS;POINTS;VOUCHER;REMARKS;ADDRESS;BRANCH;SHIP TO;BILL TO;\
SOLD TO;ATTN;TERMS;ACCOUNT NO;IBAN;SWIFT;LOT NO;EXP;SERIAL NO;MODEL;MADE IN;WARNING;CAUTION;FRAGILE;ENTRANCE;EXIT;\
SUMME;MWST;RECHNUNG;BETRAG;GESAMT;BAR;VIELEN DANK;DATUM;UHRZEIT;MONTANT;TVA;MERCI;FACTURE;PRIX;IMPORTE;FACTURA;\
FECHA;GRACIAS;TOTALE;SCONTRINO;GRAZIE;BEDRAG;BEDANKT;KVITTO;TACK;PRODUTO;OBRIGADO";
const STREETS: &str = "Street;St.;Road;Rd.;Avenue;Ave;Lane;Drive;Boulevard;Blvd.;Jalan;Taman;Lorong;Square;Place;Way;\
Court;Park;Highway;Plaza;Mall;Tower;Building;Straße;Str.;Platz;Gasse;Weg;Rue;Place;Via;Piazza;Calle;Plaza;Rua;Gatan";
const COMPANIES: &str = "LTD;LTD.;Ltd.;INC;Inc.;LLC;GmbH;AG;S.A.;S.L.;SARL;B.V.;AB;SDN BHD;SDN. BHD.;Co.;& Sons;& Co.;\
PLC;Corp.;ENTERPRISE;TRADING;RESTAURANT;STORES;HARDWARE;SUPERMARKET;BOOKSTORE;CAFE;PHARMACY;ELECTRIC;MOTORS;STATIONERY";
const NAMES: &str = "James;Mary;John;Linda;Robert;Anna;Michael;Emma;William;Sarah;David;Laura;Thomas;Julia;Peter;Helen;\
Daniel;Alice;Ahmad;Siti;Wong;Lim;Tan;Lee;Chen;Kumar;Maria;Carlos;Sofia;Ivan;Olga;Hans;Greta;Pierre;Claire;José;\
François;Jürgen;Björn;Zoë;Renée;Muñoz;García;Müller;Schröder;Lefèvre;Håkan;Åsa;Søren;João";
const UNITS: &str =
    "kg;g;lb;oz;ml;L;cm;mm;m;km;pcs;EA;pkt;box;ctn;doz;hrs;min;GB;MB;V;A;W;kW;mAh;%;°C;m²;µm";
const MONTHS: &str =
    "January;February;March;April;May;June;July;August;September;October;November;December";
const DAYS: &str = "Monday;Tuesday;Wednesday;Thursday;Friday;Saturday;Sunday";

/// One of a list.
pub(crate) fn any<'a>(rng: &mut Rng, list: &[&'a str]) -> &'a str {
    list[rng.usize(..list.len())]
}

/// One of a list written with semicolons.
fn of<'a>(rng: &mut Rng, list: &'a str) -> &'a str {
    let count = list.split(';').count();
    list.split(';').nth(rng.usize(..count)).unwrap_or_default()
}

/// One character of a text.
pub(crate) fn pick(text: &str, rng: &mut Rng) -> char {
    let count = text.chars().count();
    text.chars().nth(rng.usize(..count)).unwrap_or(' ')
}

/// As many digits as a number of the range tells.
pub(crate) fn digits(rng: &mut Rng, count: Range<usize>) -> String {
    (0..rng.usize(count)).map(|_| char::from(b'0' + rng.u8(..10))).collect()
}

fn capitals(rng: &mut Rng, count: Range<usize>) -> String {
    (0..rng.usize(count)).map(|_| char::from(b'A' + rng.u8(..26))).collect()
}

fn mixed(rng: &mut Rng, count: Range<usize>) -> String {
    (0..rng.usize(count)).map(|_| pick("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", rng)).collect()
}

/// Every word with a capital.
pub(crate) fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|c| {
            let capital = start && c.is_lowercase() && c != 'ß';
            start = !c.is_alphanumeric() && c != '\'';
            if capital { c.to_uppercase().collect() } else { vec![c] }
        })
        .collect()
}

fn thousands(value: u64, mark: char) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(mark);
        }
        out.push(c);
    }
    out
}

/// An amount of money, in many countries' forms.
pub(crate) fn price(rng: &mut Rng) -> String {
    let value = 10f64.powf(-0.3 + 4.3 * rng.f64());
    let (whole, cents) = (value as u64, rng.u8(..100));
    let amount = match rng.u8(..10) {
        0..5 => format!("{}.{cents:02}", thousands(whole, ',')),
        5..8 => format!("{whole}.{cents:02}"),
        8 => format!("{},{cents:02}", thousands(whole, '.')),
        _ => whole.to_string(),
    };
    const BEFORE: &[&str] =
        &["$", "$", "£", "€", "¥", "RM", "RM ", "US$", "USD ", "€ ", "$ ", "Rs.", "S$", "EUR "];
    const AFTER: &[&str] =
        &[" EUR", "€", " USD", " kr", "¢", " €", " SR", " Z", " A", " *", "%", " T", " S", " CHF"];
    match rng.u8(..20) {
        0..8 => amount,
        8..16 => format!("{}{amount}", any(rng, BEFORE)),
        16 => format!("-{amount}"),
        _ => format!("{amount}{}", any(rng, AFTER)),
    }
}

/// A day of the years 1950 to 2035.
pub(crate) fn date(rng: &mut Rng) -> String {
    let (d, m, y) = (rng.u32(1..=31), rng.usize(1..=12), rng.u32(1950..=2035));
    let long = MONTHS.split(';').nth(m - 1).unwrap_or_default();
    let (short, year) = (&long[..3], y % 100);
    match rng.u8(..10) {
        0 => format!("{d:02}/{m:02}/{y}"),
        1 => format!("{d:02}-{m:02}-{y}"),
        2 => format!("{y}-{m:02}-{d:02}"),
        3 => format!("{d} {short} {y}"),
        4 => format!("{long} {d}, {y}"),
        5 => format!("{d:02}/{m:02}/{year:02}"),
        6 => format!("{d:02}-{}-{y}", short.to_uppercase()),
        7 => format!("{d}.{m}.{y}"),
        8 => format!("{}, {d} {long} {y}", of(rng, DAYS)),
        _ => format!("{m}/{d}/{year:02}"),
    }
}

pub(crate) fn time(rng: &mut Rng) -> String {
    let (h, m, s) = (rng.u32(..24), rng.u32(..60), rng.u32(..60));
    match rng.u8(..4) {
        0 => format!("{h:02}:{m:02}:{s:02}"),
        1 => format!("{h:02}:{m:02}"),
        2 => format!("{}:{m:02} {}", h % 12 + 1, any(rng, &["AM", "PM", "am", "p.m."])),
        _ => format!("{}:{m:02}:{s:02} {}", h % 12 + 1, any(rng, &["AM", "PM"])),
    }
}

pub(crate) fn date_and_time(rng: &mut Rng) -> String {
    let date = date(rng);
    if rng.f32() < 0.7 { date } else { format!("{date} {}", time(rng)) }
}

fn lower(corpus: &Corpus, rng: &mut Rng) -> String {
    corpus.word(rng).to_lowercase().replace('\'', "")
}

/// Numbers of documents, telephones, addresses of the net.
pub(crate) fn code(corpus: &Corpus, rng: &mut Rng) -> String {
    match rng.u8(..11) {
        0 | 1 => digits(rng, 3..14),
        2 => mixed(rng, 4..13),
        3 => format!("{}{}{}", capitals(rng, 1..4), any(rng, &["", "-", "/"]), digits(rng, 3..9)),
        4 => format!("{}-{}", digits(rng, 2..4), digits(rng, 4..9)),
        5 => format!("({}-{})", digits(rng, 6..8), capitals(rng, 1..2)),
        6 => format!(
            "+{} {}-{} {}",
            digits(rng, 2..3),
            digits(rng, 2..3),
            digits(rng, 4..5),
            digits(rng, 4..5)
        ),
        7 => format!("SN: {}-{}-{}", mixed(rng, 4..5), mixed(rng, 4..5), mixed(rng, 4..5)),
        8 => format!("#{}", digits(rng, 2..7)),
        9 => {
            let domain = any(rng, &["com", "org", "net", "de", "fr"]);
            format!("{}@{}.{domain}", lower(corpus, rng), lower(corpus, rng))
        }
        _ => {
            format!("www.{}.{}", lower(corpus, rng), any(rng, &["com", "org", "co.uk", "my", "de"]))
        }
    }
}

/// A heading of a receipt, alone or with what it announces.
pub(crate) fn business(corpus: &Corpus, rng: &mut Rng) -> String {
    let heading = of(rng, BUSINESS);
    let heading =
        if rng.f32() < 0.6 { heading.to_string() } else { title(&heading.to_lowercase()) };
    if rng.f32() < 0.4 {
        return heading;
    }
    let between = any(rng, &[" : ", ": ", " ", ":", " # ", " "]);
    let value = match rng.u8(..6) {
        0 | 1 => price(rng),
        2 => date(rng),
        3 => code(corpus, rng),
        4 => digits(rng, 1..7),
        _ => name(corpus, rng),
    };
    format!("{heading}{between}{value}")
}

pub(crate) fn quantity(rng: &mut Rng) -> String {
    if rng.f32() < 0.6 {
        return digits(rng, 1..6);
    }
    format!("{} {} {}", digits(rng, 1..2), any(rng, &["x", "X", "*", "@", "×"]), price(rng))
}

pub(crate) fn address(corpus: &Corpus, rng: &mut Rng) -> String {
    let before = any(rng, &["", "NO. ", "NO ", "Lot ", "No.", ""]);
    let house = rng.u32(1..1000);
    let part = if rng.f32() < 0.3 { format!("-{}", digits(rng, 1..2)) } else { String::new() };
    let street = format!("{} {}", title(corpus.word(rng)), of(rng, STREETS));
    let town = match rng.u8(..3) {
        0 => String::new(),
        1 => format!(", {}", title(corpus.word(rng))),
        _ => format!(", {} {}", digits(rng, 4..6), title(corpus.word(rng))),
    };
    format!("{before}{house}{part}{} {street}{town}", any(rng, &["", ","]))
}

pub(crate) fn company(corpus: &Corpus, rng: &mut Rng) -> String {
    let more = if rng.bool() { format!(" {}", title(corpus.word(rng))) } else { String::new() };
    format!("{}{more} {}", title(corpus.word(rng)), of(rng, COMPANIES))
}

pub(crate) fn name(corpus: &Corpus, rng: &mut Rng) -> String {
    let first = of(rng, NAMES);
    match rng.u8(..3) {
        0 => format!("{first} {}", title(corpus.word(rng))),
        1 => format!("{first} {}. {}", capitals(rng, 1..2), title(corpus.word(rng))),
        _ => format!("{first} {}", of(rng, NAMES)),
    }
}

pub(crate) fn product(corpus: &Corpus, rng: &mut Rng) -> String {
    let more = if rng.bool() { format!(" {}", corpus.word(rng)) } else { String::new() };
    let space = any(rng, &["", " "]);
    format!("{}{more} {}{space}{}", corpus.word(rng), rng.u32(1..1000), of(rng, UNITS))
}

pub(crate) fn bracketed(corpus: &Corpus, rng: &mut Rng) -> String {
    let before = any(rng, &["\"", "(", "[", "*", "- ", "** ", "<", "#", "• ", "«", "¿", "¡"]);
    let after = any(rng, &["\"", ")", "]", "*", " -", " **", ">", "!", "?", "»", "™", "®"]);
    format!("{before}{}{after}", corpus.word(rng))
}
