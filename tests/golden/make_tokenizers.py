"""Writes tests/fixtures/tokenizers: tiny vocabularies and what the reference makes of them.

Made with: python 3.11, transformers 4.57.6, tokenizers 0.22.2, sentencepiece 0.2.3, protobuf 7.36.2.
Run:       python tests/golden/make_tokenizers.py      (no network; takes half a minute)

`files/` holds the vocabularies. Every other file is one case: the files a checkpoint would hold
(`files`: name in the checkpoint -> name in `files/`; `json`: name -> content), the arguments, and the
reference's answers: ids of every text, texts of every list of ids, special tokens, added tokens.
"""

import io
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

# This file is named like the package it imports.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import sentencepiece
import tokenizers
import transformers
from tokenizers import AddedToken, ByteLevelBPETokenizer, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors
from transformers import AutoTokenizer, DonutProcessor

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "tokenizers"
FILES = OUT / "files"

CORPUS = """
a cat laying on a blanket next to a cat laying on a bed .
a man riding a wave on top of a surfboard in the ocean .
two dogs are playing with a ball, aren't they? They're happy!
It's a small room; I'm sure you've seen it before. He doesn't know, she'll say "no".
INDUSTRIAL OUTPUT ROSE 12.5 % IN 1998 - TOTAL: 3,450 UNITS (see page 7).
le café est très agréable, où êtes-vous passé à Noël ?
Die Straße ist schön und groß, über den Fluss führt eine Brücke.
naïve façade, jalapeño, smörgåsbord, crème brûlée, São Paulo, Kraków
日本語の文字を読む 東京は大きい 漢字とかな カタカナ
the quick brown fox jumps over the lazy dog 0123456789
a woman holding an umbrella, a child eating pizza, a train at the station
street sign on the corner of the building with a clock tower
""".strip().split("\n")

TEXTS = [
    "",
    " ",
    "a cat laying on a bed",
    " a cat laying on a bed ",
    "A man's dog isn't here; they've said 'no'.",
    "hello , world . it ' s fine ! isn ' t it ? I 'm , we 've , you 're n't do not",
    "Crème brûlée à São Paulo, jalapeño",
    "cafe\u0301 na\u00efve Stra\u00dfe \u0130stanbul \u03a3\u03b1\u03c2",
    "日本語の文字を読む。東京は",
    "ｈａｌｆ ﬁne ① ™ ﾃｽﾄ",
    "emoji 😀👍🏽 👨‍👩‍👧 ok",
    "two  blanks   three\ttab\nnew\r\nline",
    "\n\n",
    "a<s>b</s> <mask> <pad> <unk>",
    "x [CLS] y [SEP][MASK] [UNK] <|endoftext|> z",
    "  <mask>  next <new> tok_a tok_b, TOK_A.",
    "<s_menu><s_nm> Latte </s_nm><sep/></s_menu>",
    "en_XX fr_XX hello </s> world",
    "don't they're it's we'll I'd",
    "3,450 units (12.5%) @ #7 & *",
    "supercalifragilisticexpialidocious",
    "\u0000 \u200b zero\u00ad width \ufeff nbsp\u00a0here \ufffd",
    "▁under score ▁ ▁▁ x",
    "@@ a@@ b __unk__ __start__ hello!(yes)",
    ">>fra<< the cat ",
    "." * 5 + "?!" + "-" * 3,
]


def train_files():
    shutil.rmtree(OUT, ignore_errors=True)
    FILES.mkdir(parents=True)
    byte_level = ByteLevelBPETokenizer()
    byte_level.train_from_iterator(CORPUS, vocab_size=400, min_frequency=2, show_progress=False,
                                   special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    save_bpe(byte_level, "roberta")
    byte_level = ByteLevelBPETokenizer()
    byte_level.train_from_iterator(CORPUS, vocab_size=380, min_frequency=2, show_progress=False,
                                   special_tokens=["<|endoftext|>"])
    save_bpe(byte_level, "gpt2")

    for name, lower in (("uncased", True), ("cased", False)):
        vocab = word_pieces(lower)
        (FILES / f"{name}.txt").write_text("".join(f"{token}\n" for token in vocab), encoding="utf-8")

    train_spm("fairseq", vocab_size=260, unk_id=0, bos_id=1, eos_id=2, pad_id=-1)
    train_spm("fairseq-bpe", vocab_size=200, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, model_type="bpe")
    train_spm("barthez", vocab_size=240, bos_id=0, pad_id=1, eos_id=2, unk_id=3, user_defined_symbols=["<mask>"])
    train_spm("pegasus", vocab_size=240, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    train_spm("marian-source", vocab_size=200)
    train_spm("marian-target", vocab_size=220)
    rules = {"\ufb01": "fi", "\u2122": "TM", "\u00e9": "e", "e\u0301": "\u00e9", "\u3002": ".", "\u00a0": " ",
             "\u200b": "", "\t": " ", "\n": " ", "\uff48": "h", "\u2460": "1"}
    code_points = lambda text: " ".join(f"{ord(c):X}" for c in text)
    with tempfile.TemporaryDirectory() as tmp:
        os.chdir(tmp)  # the name of the file would be stored in the model
        Path("rules.tsv").write_text("".join(
            f"{code_points(source)}\t{code_points(target)}\n" for source, target in rules.items()))
        train_spm("charsmap", vocab_size=230, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
                  normalization_rule_tsv="rules.tsv")
        os.chdir(OUT)
    marian_vocab()
    blenderbot_small()
    stored_json()


def word_pieces(lower):
    """A WordPiece vocabulary: characters, then the commonest beginnings and ends of words."""
    splitter = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    splitter.normalizer = normalizers.BertNormalizer(lowercase=lower)
    text = [splitter.normalizer.normalize_str(line) for line in CORPUS]
    words = [word for line in text for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(line)]
    counts = {}
    for word in words:
        for cut in range(2, len(word) + 1):
            counts[word[:cut]] = counts.get(word[:cut], 0) + cut
        for cut in range(1, len(word) - 1):
            counts[f"##{word[cut:]}"] = counts.get(f"##{word[cut:]}", 0) + len(word) - cut
    characters = sorted({c for word in words for c in word})
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    common = sorted((piece for piece in counts if piece not in vocab), key=lambda piece: (-counts[piece], piece))
    return (vocab + common)[:330]


def save_bpe(tokenizer, name):
    with tempfile.TemporaryDirectory() as tmp:
        tokenizer.save_model(tmp)
        shutil.copy(f"{tmp}/merges.txt", FILES / f"{name}-merges.txt")
        vocab = json.loads(Path(tmp, "vocab.json").read_text(encoding="utf-8"))
    if name == "roberta":
        vocab["<mask>"] = len(vocab)
    write_json(FILES / f"{name}-vocab.json", vocab)


def train_spm(name, **options):
    options = {"model_type": "unigram", "normalization_rule_name": "identity", "character_coverage": 0.995,
               **options}
    if "normalization_rule_tsv" in options:
        del options["normalization_rule_name"]
    model = io.BytesIO()  # a file name would be stored in the model
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, hard_vocab_limit=False, num_threads=1,
        minloglevel=2, **options)
    (FILES / f"{name}.model").write_bytes(model.getvalue())


def marian_vocab():
    pieces = []
    for name in ("marian-target", "marian-source"):
        sp = sentencepiece.SentencePieceProcessor(model_file=str(FILES / f"{name}.model"))
        pieces += [sp.id_to_piece(i) for i in range(3, sp.get_piece_size())]
    vocab = {"</s>": 0, "<unk>": 1}
    for piece in sorted(set(pieces) - {"▁dog"}):  # one piece of the model is missing, as in real ones
        vocab[piece] = len(vocab)
    vocab[">>fra<<"] = len(vocab)
    vocab["<pad>"] = len(vocab)
    write_json(FILES / "marian-vocab.json", vocab)


def blenderbot_small():
    vocab = ["__null__", "__start__", "__end__", "__unk__", "__newln__"]
    letters = [c for c in "abcdefghijklmnopqrstuvwxyzé'.,!?()0123456789"]
    vocab += [c for c in letters] + [f"{c}@@" for c in letters]
    merges = ["t h", "th e</w>", "c a", "ca t</w>", "i n", "in g</w>", "o n</w>", "a n", "an d</w>",
              "b e", "be d</w>", "l ay", "a y", "l ay", "ay ing</w>", "e r</w>", "h e", "l l", "ll o</w>"]
    for merge in merges:
        word = merge.replace(" ", "")
        vocab.append(word[:-4] if word.endswith("</w>") else word + "@@")
    write_json(FILES / "blenderbot-small-vocab.json", {t: i for i, t in enumerate(dict.fromkeys(vocab))})
    (FILES / "blenderbot-small-merges.txt").write_text("#version: 0.2\n" + "".join(f"{m}\n" for m in merges))


def stored_json():
    """Fast tokenizers as they come with real checkpoints, padding and truncation left switched on."""
    tok = Tokenizer(models.BPE.from_file(str(FILES / "gpt2-vocab.json"), str(FILES / "gpt2-merges.txt")))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.add_special_tokens(["<|endoftext|>", "[PAD]"])
    tok.add_tokens([AddedToken("tok_a", single_word=True), AddedToken("<new>", lstrip=True, rstrip=True)])
    tok.enable_truncation(max_length=5)
    tok.enable_padding(length=8, pad_id=tok.token_to_id("[PAD]"), pad_token="[PAD]")
    tok.save(str(FILES / "gpt2-tokenizer.json"), pretty=False)

    slow = load({"sentencepiece.bpe.model": "fairseq.model"}, {"tokenizer_config.json": {
        "tokenizer_class": "XLMRobertaTokenizer"}})
    tok = slow.backend_tokenizer
    tok.add_special_tokens(["<s_menu>", "</s_menu>"])
    tok.add_tokens([AddedToken(t, normalized=False, special=False) for t in ("<s_nm>", "</s_nm>", "<sep/>", "<yes/>")])
    tok.enable_truncation(max_length=4)
    tok.save(str(FILES / "donut-tokenizer.json"), pretty=False)

    slow = load({"vocab.txt": "cased.txt"}, {"tokenizer_config.json": {
        "tokenizer_class": "BertTokenizer", "do_lower_case": False}})
    slow.backend_tokenizer.add_tokens(["TOK_A"])
    slow.backend_tokenizer.save(str(FILES / "bert-tokenizer.json"), pretty=False)


def materialise(directory, files, content):
    for name, source in files.items():
        shutil.copy(FILES / source, Path(directory) / name)
    for name, value in content.items():
        write_json(Path(directory) / name, value)


def load(files, content, cls=None):
    with tempfile.TemporaryDirectory() as tmp:
        materialise(tmp, files, content)
        loader = getattr(transformers, cls) if cls else AutoTokenizer
        return loader.from_pretrained(tmp)


def attempt(call):
    try:
        return call()
    except Exception:  # the reference raises: so must we
        return None


def case(name, files, content, cls=None):
    tok = load(files, content, cls)
    random.seed(name)
    # Labels are what vedm encodes: Marian has a second model for them.
    encode = (lambda text, **rest: tok(text_target=text, **rest)) if name == "marian" else tok
    encoded = [encode(text)["input_ids"] for text in TEXTS]
    plain = [encode(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    lists = [[random.randrange(len(tok)) for _ in range(random.randrange(1, 14))] for _ in range(10)]
    lists += [list(range(min(len(tok), 12))), list(range(len(tok) - 12, len(tok)))]
    lists += [[len(tok) + 7], [5, len(tok), 6], [5, -1, 6], []]

    def decode(ids):
        return [attempt(lambda: tok.decode(ids)), attempt(lambda: tok.decode(ids, skip_special_tokens=True))]

    attributes = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"]
    special = {}
    for attribute in attributes:
        value = tok._special_tokens_map[f"{attribute}_token"]
        special[attribute] = None if value is None else [str(value), getattr(tok, f"{attribute}_token_id")]
    added = sorted(([i, t.content, t.single_word, t.lstrip, t.rstrip, t.normalized, t.special]
                    for i, t in tok.added_tokens_decoder.items()), key=lambda row: row[0])
    write_json(OUT / f"{name}.json", {
        "reference": type(tok).__name__,
        "files": files,
        "json": content,
        "expected": {
            "len": len(tok),
            "clean_up_tokenization_spaces": bool(tok.clean_up_tokenization_spaces),
            "special": special,
            "additional": [str(t) for t in tok.additional_special_tokens],
            "added": added,
            # One row a text of texts.json: ids, ids without special tokens, both texts of the ids.
            "encode": [[ids, bare, *decode(ids)] for ids, bare in zip(encoded, plain)],
            # Ids, their text, their text without special tokens; null where the reference raises.
            "decode": [[ids, *decode(ids)] for ids in lists],
        },
    })
    print(f"{name}: {type(tok).__name__}, {len(tok)} tokens")


def donut():
    """Tagged texts and what DonutProcessor.token2json makes of them."""
    class Processor:
        token2json = DonutProcessor.token2json

    vocab = {token: i for i, token in enumerate(["<yes/>", "<no/>", "<sep/>", "<s_a>"])}
    texts = [
        "", "plain text", "<s_a>1</s_a>", "<s_a> x </s_a> tail", "<s_a>1<sep/>2 <sep/></s_a>",
        "<s_menu><s_nm>Latte</s_nm><s_price>4.50</s_price><sep/><s_nm>Tea</s_nm></s_menu><s_total>9</s_total>",
        "<s_menu><s_nm>a</s_nm><sep/><s_nm>b</s_nm><sep/><s_nm>c</s_nm><sep/></s_menu>",
        "<s_a>1</s_a><sep/><s_b>2</s_b><sep/>", "<s_a>1</s_a><sep/>nothing", "<sep/><s_a>1</s_a>",
        "<s_a><s_b><s_c>deep</s_c></s_b></s_a>", "<s_a>open <s_b>in</s_b>", "<s_a>only open", "<s_a", "<s_>empty key</s_>",
        "<S_A>upper</s_a><s_B>mixed</S_b>", "<s_a>1</s_a><s_a>2</s_a>", "</s_a>early<s_a>late", "<s_a></s_a>",
        "<s_a><yes/></s_a><s_b><no/><sep/><maybe/></s_b>", "<s_a><s_b>x</s_a></s_b>", "<s_a.*>dots</s_a.*>",
        "<s_k>K</s_\u212a> \u2003<s_x>\u3000wide\u3000</s_x>", "<\u017f_a>long s</s_a>", "<s_iitcdip> text without fields",
        "<s_a><s_b></s_b></s_a>", "<s_a><s_b>no end</s_c></s_a><s_d>after</s_d>", "<s_a>line\nbreak</s_a>\n<s_b>2</s_b>",
        "<s_a>1</s_a> <sep/> <s_b>2</s_b>", "<s_a><sep/><s_b>1</s_b></s_a>", "<s_menu>\n<s_nm>x</s_nm>\n<sep/>\n<s_nm>y</s_nm></s_menu>",
        "<s_é>accents</s_É>", "<s_a>1</s_a><s_b><s_c>2</s_c><sep/></s_b><s_a>3</s_a>", "<s_a <s_b>x</s_b>",
    ]
    write_json(OUT / "donut-forms.json", {
        "added_vocab": list(vocab), "forms": [[text, Processor().token2json(text, added_vocab=vocab)] for text in texts]})


def write_json(path, value):
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    Path(path).write_text(text + "\n", encoding="utf-8", errors="surrogatepass")


def config(tokenizer_class, **rest):
    return {"tokenizer_config.json": {"tokenizer_class": tokenizer_class, **rest}}


def added(content, **rest):
    token = {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False,
             "special": False}
    return {**token, **rest}


def cases():
    gpt2 = {"vocab.json": "gpt2-vocab.json", "merges.txt": "gpt2-merges.txt"}
    roberta = {"vocab.json": "roberta-vocab.json", "merges.txt": "roberta-merges.txt"}
    case("gpt2", gpt2, config("GPT2Tokenizer"))
    case("gpt2-bos", gpt2, config("GPT2TokenizerFast", add_bos_token=True, add_prefix_space=True,
                                  pad_token="<pad>", errors="replace",
                                  bos_token={"__type": "AddedToken", **added("<|endoftext|>")}))
    case("gpt2-json", {**gpt2, "tokenizer.json": "gpt2-tokenizer.json"},
         config("GPT2Tokenizer", clean_up_tokenization_spaces=True, added_tokens_decoder={
             "341": added("[PAD]", normalized=False, special=True), "383": added("tok_b", special=True)}))
    case("stored-json", {"tokenizer.json": "gpt2-tokenizer.json"}, config("PreTrainedTokenizerFast"))
    case("roberta", roberta, config("RobertaTokenizer"))
    case("roberta-legacy", roberta, {
        **config("RobertaTokenizer", additional_special_tokens=["tok_b"], eos_token="<wrong>"),
        "special_tokens_map.json": {
            "eos_token": "</s>", "pad_token": {"content": "<pad>", "lstrip": False, "normalized": True,
                                               "rstrip": False, "single_word": False},
            "mask_token": {"content": "<mask>", "lstrip": True, "normalized": True, "rstrip": False,
                           "single_word": False},
            "additional_special_tokens": ["tok_a"]},
        "added_tokens.json": {"<new>": 402, "tok_a": 401}})
    case("roberta-added", roberta, config("RobertaTokenizer", clean_up_tokenization_spaces=True,
                                          added_tokens_decoder={
                                              "0": added("<s>", special=True), "2": added("</s>", special=True),
                                              "343": added("<mask>", lstrip=True, special=True),
                                              "401": added("<new>", rstrip=True), "402": added("tok_a", normalized=False)},
                                          mask_token="<mask>"))
    case("bart", roberta, config("BartTokenizer"))
    case("blenderbot", roberta, config("BlenderbotTokenizer"))
    case("bert-uncased", {"vocab.txt": "uncased.txt"}, config("BertTokenizer"))
    case("bert-cased", {"vocab.txt": "cased.txt"}, config(
        "BertTokenizer", do_lower_case=False, clean_up_tokenization_spaces=False, additional_special_tokens=["tok_b"]))
    case("electra-accents", {"vocab.txt": "uncased.txt"}, config(
        "ElectraTokenizer", strip_accents=False, tokenize_chinese_chars=False))
    case("bert-json", {"vocab.txt": "cased.txt", "tokenizer.json": "bert-tokenizer.json"}, config("BertTokenizer"))
    case("bert-japanese-character", {"vocab.txt": "cased.txt"}, config(
        "BertJapaneseTokenizer", word_tokenizer_type="basic", subword_tokenizer_type="character"))
    case("bert-japanese-wordpiece", {"vocab.txt": "uncased.txt"}, config(
        "BertJapaneseTokenizer", word_tokenizer_type="basic", do_lower_case=True,
        clean_up_tokenization_spaces=True, added_tokens_decoder={"330": added("TOK_A"), "331": added("tok_b", special=True)}))
    fairseq = {"sentencepiece.bpe.model": "fairseq.model"}
    case("xlm-roberta", fairseq, config("XLMRobertaTokenizer"))
    case("xlm-roberta-charsmap", {"sentencepiece.bpe.model": "charsmap.model"}, config("XLMRobertaTokenizer"))
    case("xlm-roberta-bpe", {"sentencepiece.bpe.model": "fairseq-bpe.model"}, config("XLMRobertaTokenizer"))
    case("donut", {**fairseq, "tokenizer.json": "donut-tokenizer.json"}, {
        **config("XLMRobertaTokenizer"), "special_tokens_map.json": {
            "bos_token": "<s>", "additional_special_tokens": ["<s_menu>"],
            "mask_token": {"content": "<mask>", "lstrip": True, "normalized": True, "rstrip": False,
                           "single_word": False}}})
    case("mbart", fairseq, config("MBartTokenizer", src_lang="fr_XX"))
    case("mbart50", fairseq, config("MBart50Tokenizer", additional_special_tokens=["<new>"]))
    case("camembert", fairseq, config("CamembertTokenizer"))
    case("barthez", {"sentencepiece.bpe.model": "barthez.model"}, config("BarthezTokenizer"))
    case("xglm", fairseq, config("XGLMTokenizer"))
    case("pegasus", {"spiece.model": "pegasus.model"}, config("PegasusTokenizer"))
    case("marian", {"source.spm": "marian-source.model", "target.spm": "marian-target.model",
                    "vocab.json": "marian-vocab.json"}, config("MarianTokenizer"))
    case("blenderbot-small", {"vocab.json": "blenderbot-small-vocab.json",
                              "merges.txt": "blenderbot-small-merges.txt"},
         config("BlenderbotSmallTokenizer"), cls="BlenderbotSmallTokenizer")


if __name__ == "__main__":
    versions = (transformers.__version__, tokenizers.__version__, sentencepiece.__version__)
    if versions != ("4.57.6", "0.22.2", "0.2.3"):
        sys.exit(f"made for transformers 4.57.6, tokenizers 0.22.2, sentencepiece 0.2.3, found {versions}")
    train_files()
    write_json(OUT / "texts.json", TEXTS)
    donut()
    cases()
