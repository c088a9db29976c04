"""Names that try to be markup."""

HOSTILE = "<script>alert(1)</script>"
HOSTILE_ATTRIBUTE = '" onmouseover="alert(2)" x="'
HOSTILE_IMAGE = "<img src=https://example.invalid/x.png>"
