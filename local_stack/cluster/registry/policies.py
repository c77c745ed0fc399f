"""ValidatingAdmissionPolicies: their expressions, evaluated by CEL's own implementation, on what is to be written.

As Kubernetes does it (https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/): match
constraints, match conditions, variables, validations, one ConfigMap of parameters, failurePolicy Fail. Left out is what
no policy of ours uses: other parameters, audit annotations, exclusions, object selectors, the cost of an expression,
and whether an expression fits a kind's schema.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from local_stack.cluster.registry.errors import forbidden
from local_stack.cluster.registry.objects import Obj
from local_stack.cluster.registry.resources import ADMISSION_BINDINGS, ADMISSION_POLICIES, Resource
from local_stack.cluster.registry.store import Store

_VERBS = ("get", "create", "update", "patch", "delete")
_NAMES = ("object", "oldObject", "request", "params", "variables", "authorizer")


@dataclass(frozen=True)
class Write:
    """One write as policies see it.

    old: None at a creation. may(verb): whether who writes may do that to the object. labels: of its namespace.
    """

    resource: Resource
    obj: Obj
    old: Obj | None = None
    subresource: str = ""
    may: Callable[[str], bool] = lambda verb: True
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def operation(self) -> str:
        return "CREATE" if self.old is None else "UPDATE"


class _EvaluationError(Exception):
    """An expression has no value for this object; the text is CEL's."""


def admit(store: Store, write: Write) -> None:
    """Raises the refusal of the first policy that is bound and denies the write."""
    for stored in store.all(ADMISSION_BINDINGS.plural, ""):
        spec = stored.obj["spec"]
        found = store.get(ADMISSION_POLICIES.plural, "", spec["policyName"])
        if found is None:
            continue
        where = spec.get("paramRef") or {}
        params = store.get("configmaps", where.get("namespace", ""), where["name"]) if where else None
        if why := denial(found, stored.obj, params, write):
            name = write.obj["metadata"].get("name") or write.obj["metadata"].get("generateName", "")
            refusal = forbidden(write.resource, name, why)
            # A validation that names no reason is Invalid, and the sentence says forbidden all the same.
            refusal.code, refusal.reason = 422, "Invalid"
            raise refusal


def denial(policy: Obj, binding: Obj, params: Obj | None, write: Write) -> str | None:
    """Why a policy denies the write, in the API server's words; None where it does not, or is not about it."""
    spec, bound = policy["spec"], binding["spec"]
    wanted = ((bound.get("matchResources") or {}).get("namespaceSelector") or {}).get("matchLabels") or {}
    if not wanted.items() <= write.labels.items() or not _is_about(spec["matchConstraints"]["resourceRules"], write):
        return None
    said = f"ValidatingAdmissionPolicy '{policy['metadata']['name']}' with binding '{binding['metadata']['name']}'"
    if spec.get("paramKind") and params is None:
        missing = "no params found for policy binding with `Deny` parameterNotFoundAction"
        return f"{said} denied request: failed to configure binding: {missing}"
    known = _known(write, params)
    try:
        if not all(_value(c["expression"], known) is True for c in spec.get("matchConditions") or ()):
            return None
        for variable in spec.get("variables") or ():
            try:
                known["variables"][variable["name"]] = _value(variable["expression"], known)
            except _EvaluationError:
                continue  # it is evaluated where it is used, and there it is missing
        for validation in spec["validations"]:
            if _value(validation["expression"], known) is not True:
                return f"{said} denied request: {_message(validation, known)}"
    except _EvaluationError as error:
        return f"{said} denied request: {error}"
    return None


def _is_about(rules: Iterable[Obj], write: Write) -> bool:
    plural = write.resource.plural + (f"/{write.subresource}" if write.subresource else "")
    return any(
        write.resource.group in rule["apiGroups"]
        and write.resource.version in rule["apiVersions"]
        and write.operation in rule["operations"]
        and plural in rule["resources"]
        for rule in rules
    )


def _known(write: Write, params: Obj | None) -> dict[str, Any]:
    """What an expression may name."""
    kind = {"group": write.resource.group, "version": write.resource.version, "kind": write.resource.kind}
    meta = write.obj["metadata"]
    return {
        "object": write.obj,
        "oldObject": write.old,
        "request": {
            "operation": write.operation,
            "kind": kind,
            "name": meta.get("name", ""),
            "namespace": meta.get("namespace", ""),
            "subResource": write.subresource,
        },
        "params": params,
        "variables": {},
        "authorizer": {"requestResource": {verb: write.may(verb) for verb in _VERBS}},
    }


def _message(validation: Obj, known: Mapping[str, Any]) -> str:
    if "messageExpression" in validation:
        return str(_value(validation["messageExpression"], known))
    return str(validation.get("message") or f"failed expression: {validation['expression']}")


def _value(expression: str, known: Mapping[str, Any]) -> Any:
    result = _compiled(expression).eval(data=dict(known))
    if result.type().name() == "ERROR":
        raise _EvaluationError(f"expression '{expression}' resulted in error: {result.plain_value()}")
    return result.plain_value()


@functools.cache
def _compiled(expression: str) -> Any:
    """Raises RuntimeError for one that is no CEL."""
    return _environment().compile(expression)


@functools.cache
def _environment() -> Any:
    from cel_expr_python import cel  # only where there are policies
    from cel_expr_python.ext import ext_optional, ext_strings

    dyn, text, switch = cel.Type.DYN, cel.Type.STRING, cel.Type.BOOL
    check = cel.Overload("check", dyn, [dyn, text], True, lambda resource, verb: {"allowed": resource[verb]})
    allowed = cel.Overload("allowed", switch, [dyn], True, lambda decision: decision["allowed"])
    functions = [cel.FunctionDecl("check", [check]), cel.FunctionDecl("allowed", [allowed])]
    extensions = [ext_optional.ExtOptional(), ext_strings.ExtStrings(), cel.CelExtension("authorizer", functions)]
    return cel.NewEnv(variables=dict.fromkeys(_NAMES, dyn), extensions=extensions)
