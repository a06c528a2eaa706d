"""The demonstration: a real job over a folder, killed twice, and what can be asked of it then.

walk      what is in the folder (bounded)
plan      a proposal made of that, purely
tools     the work itself
report    the Markdown, purely
calls     the journal of tool calls, kept outside of the database, and what it proves
child     the process that is killed
watch     the process that kills it
place     the folder that the demonstration leaves
show      what people see
command   `carstore demo`
"""
