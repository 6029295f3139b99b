"""Read a network's code on an example: the operators that it calls, in order."""

from prunus.program.operations import Operation, Origin, Passed, Program, Value
from prunus.program.read import Place, ReadError, read

__all__ = ["Operation", "Origin", "Passed", "Place", "Program", "ReadError", "Value", "read"]
