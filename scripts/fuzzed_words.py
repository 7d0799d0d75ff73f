"""What the edits of `fuzz.py` put into inputs: signs and values at which readers go wrong."""

NUMPY_WORDS = (
    *(b"'descr': '<f8'", b"'|O'", b"'<U4'", b"'V0'", b"'<M8[s]'", b"[('a', '<f4'), ('b', '|O')]", b"'c16'"),
    *(b"'fortran_order': True", b"(0, 10)", b"(1000000000, 1000000000)", b"(-1,)", b"(True,)", b"()", b"9" * 40),
    *(b"{", b"}"),
)
PICKLE_WORDS = (
    *(b"cos\nsystem\n", b"ctorch\nload\n", b"R", b"(", b"t", b".", b"}", b"\x80\x02", b"q\x00", b"J\xff\xff\xff\x7f"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"X\x05\x00\x00\x00", b"K\x02K\x03\x86"),
)
TEXT = (
    *(b",", b'"', b"\n", b"\r\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"-1", b"nan", b"inf", b"1e999", b";", b"|", b" "),
    *(b"../../", b"/etc/passwd", "²".encode(), "٣".encode(), "\u2028".encode(), b"9" * 5000, b"=cmd()"),
)
SIGNS = (
    *(*TEXT, b"[", b"]", b"{", b"}", b"=", b"@", b"+", b":", b"\\", b"[0]", b"[-1]", b"true", b"null", b"!!binary x"),
    *(b"&a [*a]", b"[" * 300, b"{" * 300, b"- " * 300, b"0b", b"0x", b"1:2:3", b"2020-13-45", b"!!float x", b"<<: "),
    *(b"? ", b"\xed\xb2\x80"),
)
_BOMB = (
    b"&a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    b"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
)
YAML = (
    *(*SIGNS, b"&a ", b"*a", b"*base", b"<<: *base", b"!!python/object:os.system x", b"|\n", b">-\n", b"%YAML 9.9\n"),
    *(
        b"---\n",
        b"...\n",
        b"\t",
        b"models",
        b"datasets",
        b"methods",
        b"study",
        b"labels",
        b"perturbations",
        b"~",
        _BOMB,
    ),
    *(b"metric_options", b"!!set {a, b}", b"!!omap [a: b]", b"!!bool x", b"!!timestamp x"),
)
JSON = (
    *(*TEXT, b"{", b"}", b"[", b"]", b"null", b"true", b"1.5", b"NaN", b"\\ud800", b'"0": ', b"[" * 300),
    b'"id2label": ',
)
BYTES = (
    *(b"\0\0\0\0", b"\xff\xff\xff\xff", b"IDAT", b"IHDR", b"tRNS\0", b"acTL", b"zTXtA\0\0", b"PLTE", b"\xff\xd8"),
    *(b"\xff\xda", b"DICM", b"\x01\x00\x00\x00", *NUMPY_WORDS),
)
ZIP = (*BYTES, b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06")
