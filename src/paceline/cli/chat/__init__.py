"""`paceline chat`: a session on a terminal, in a pipe, or for another program.

Pure:     lines (events as lines of text), status (the line that says what goes on), column
Driver:   keyboard (lines that are typed), displays (terminal, text, JSON), dialogue (the turns)
Command:  commands (its options), session (one is opened, and ended), listing (what there is)
"""

__all__: list[str] = []
