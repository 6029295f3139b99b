"""All kinds of records, by their name in the file."""

from prunus.records import gate, kinds

TYPES: dict[str, type[kinds.Record]] = {
    cls.kind: cls
    for module in (kinds, gate)
    for cls in vars(module).values()
    if isinstance(cls, type) and issubclass(cls, kinds.Record) and cls is not kinds.Record
}
