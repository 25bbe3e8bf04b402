"""
Docker's HEALTHCHECK: exit 0 while the server takes requests, else 1 and one line that says why.

Any Python will do. GEMMA_SERVE_HEALTH_URL names another address, for another port or HTTPS.
"""

from __future__ import annotations

import os
import ssl
import sys
import urllib.error
import urllib.request

URL_VARIABLE = "GEMMA_SERVE_HEALTH_URL"
URL = "http://127.0.0.1:8000/readyz"
TIMEOUT_S = 4  # below that of HEALTHCHECK


def main() -> int:
    """Ask once; `docker inspect` shows what is printed."""
    url = os.environ.get(URL_VARIABLE, URL)
    # The certificate is for the name that clients know, not for this address.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=context) as answer:  # noqa: S310
            print(answer.read().decode())
    except urllib.error.HTTPError as error:
        print(f"{url} answers {error.code}: {error.read().decode()}")
        return 1
    except (OSError, ValueError) as error:
        print(f"{url} can't be reached ({error}); {URL_VARIABLE} names another address.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
