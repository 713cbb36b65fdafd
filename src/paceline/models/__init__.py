"""What answers: the protocol of models, and models that need no server of ours.

Protocol:   model.Model
Pure:       openai (requests and replies as chat completions), parts (a reply in pieces)
Models:     scripted, replay (recorded ones), pydantic_ai (all providers of that library)

Models behind OpenAI-compatible servers are instances of a fleet: `paceline.instances.openai`.
"""

__all__: list[str] = []
