"""A small model that runs on this machine: no key, no network, and little wit.

Pure:    options (what can be asked of tools, and which of it a question asks), answers
Driver:  model (the Model), process (where it runs), worker (the program in that process)

It chooses which tools to call and shows what they return; it says nothing of its own, as a model of
its size cannot be trusted to. Needs the extra `paceline[embedded]` and a GGUF file.
"""

from paceline.models.embedded.model import EmbeddedModel

__all__ = ["EmbeddedModel"]
