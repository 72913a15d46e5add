"""Takes its process with it when it is loaded, without a word."""

import os

os._exit(3)
