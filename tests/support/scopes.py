"""Valid and malformed scopes, with the actions granted to a user of `team/**`.

The user may pull and push there.
"""

from typing import Final

Granted = dict[str, set[str]]

_NOTHING: Granted = {}
_PULL: Granted = {"team/app": {"pull"}}
_BOTH: Granted = {"team/app": {"pull", "push"}}

SCOPES: Final[dict[str, tuple[str, Granted]]] = {
    "nothing": ("", _NOTHING),
    "spaces": ("   ", _NOTHING),
    "pull": ("repository:team/app:pull", _PULL),
    "both": ("repository:team/app:pull,push", _BOTH),
    "the other order": ("repository:team/app:push,pull", _BOTH),
    "twice": ("repository:team/app:pull,pull repository:team/app:pull", _PULL),
    "in two": ("repository:team/app:pull repository:team/app:push", _BOTH),
    "everything": ("repository:team/app:*", _BOTH),
    "everything and more": ("repository:team/app:*,pull", _BOTH),
    "a class": ("repository(plugin):team/app:pull", _PULL),
    "another class": ("repository(image):team/app:pull", _PULL),
    "an empty class": ("repository():team/app:pull", _NOTHING),
    "a class left open": ("repository(plugin:team/app:pull", _NOTHING),
    "no actions": ("repository:team/app:", _NOTHING),
    "commas": ("repository:team/app:,,,", _NOTHING),
    "commas around": ("repository:team/app:,pull,", _PULL),
    "an unknown action": ("repository:team/app:admin", _NOTHING),
    "an unknown action beside": ("repository:team/app:admin,pull", _PULL),
    "delete, which she may not": ("repository:team/app:delete", _NOTHING),
    "rights that are no actions": ("repository:team/app:create,overwrite", _NOTHING),
    "capital action": ("repository:team/app:PULL", _NOTHING),
    "capital type": ("REPOSITORY:team/app:pull", _NOTHING),
    "capital name": ("repository:Team/App:pull", _NOTHING),
    "unknown type": ("image:team/app:pull", _NOTHING),
    "unknown type beside": ("image:x:pull repository:team/app:pull", _PULL),
    "the catalogue": ("registry:catalog:*", {"catalog": {"*"}}),
    "the catalogue, otherwise": ("registry:catalog:pull", _NOTHING),
    "another thing of the registry": ("registry:users:*", _NOTHING),
    "a host": ("repository:registry.example:5000/team/app:pull", _NOTHING),
    "a host and a tag": ("repository:host:5000/team/app:latest:pull", _NOTHING),
    "two parts": ("repository:team/app", _NOTHING),
    "one part": ("repository", _NOTHING),
    "no type": (":team/app:pull", _NOTHING),
    "no name": ("repository::pull", _NOTHING),
    "colons": (":::::", _NOTHING),
    "dots": ("repository:team/../app:pull", _NOTHING),
    "a slash before": ("repository:/team/app:pull", _NOTHING),
    "a slash after": ("repository:team/app/:pull", _NOTHING),
    "doubled slashes": ("repository:team//app:pull", _NOTHING),
    "a pattern": ("repository:team/*:pull", _NOTHING),
    "every repository": ("repository:**:*", _NOTHING),
    "a hidden one": ("repository:hidden/app:pull", _NOTHING),
    "NUL": ("repository:team/app\0:pull", _NOTHING),
    "a line end": ("repository:team/app\n:pull", _NOTHING),
    "a line end between": ("repository:team/app:pull\nrepository:team/app:push", _BOTH),
    "other digits": ("repository:team/\u0661:pull", _NOTHING),
    "SQL": ("repository:team/app' OR '1'='1:pull", _NOTHING),
    "a quote": ('repository:team/app":pull', _NOTHING),
    "JSON": ('{"type":"repository","name":"team/app","actions":["pull"]}', _NOTHING),
    "percent": ("repository%3Ateam%2Fapp%3Apull", _NOTHING),
}
