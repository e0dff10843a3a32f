"""Files: `/v1/files`. Their content is in `content`; the rules are in `batchord.service`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from app.bodies import Body, ExpiresAfter
from app.deps import BackendDep, TenantDep
from app.multipart import Part, form_body, open_form
from app.paging import Identified, ListPage, Order
from batchord.contract import FileObject
from batchord.errors import InvalidRequestError
from batchord.service import files, purposes
from batchord.service.incoming import IncomingFile, receiving

router = APIRouter(prefix="/v1/files", tags=["files"])

_FORM: Final = form_body(
    ["purpose", "file"],
    {
        "purpose": {"type": "string", "enum": list(purposes.PURPOSES)},
        "file": {"type": "string", "format": "binary"},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": 3_600, "maximum": 2_592_000},
    },
)


class FileModel(Identified):
    """OpenAI's file object."""

    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["uploaded", "processed"]
    status_details: str | None = None

    @classmethod
    def of(cls, file: FileObject) -> FileModel:
        """Show a file."""
        shown = file.model_dump(include=set(cls.model_fields) & set(FileObject.model_fields))
        return cls(**shown, object="file", status_details=None)  # set, so that a nested one shows them too


class DeletedFile(BaseModel):
    """That a file is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class Wanted(BaseModel):
    """Which files, and in which order by their creation."""

    limit: int = Field(default=10_000, ge=1, le=10_000)
    after: str | None = Field(default=None, min_length=1)
    order: Order = "desc"
    purpose: str | None = None


class _Fields(Body):
    """The fields of the upload's form besides the file."""

    purpose: str
    expires_after: ExpiresAfter | None = None


@router.post("", openapi_extra=_FORM)
async def create_file(request: Request, backend: BackendDep, tenant: TenantDep) -> FileModel:
    """Store a file; the form's fields may come in any order."""
    most_bytes = purposes.most_bytes(backend.settings)
    texts: dict[str, str] = {}
    async with open_form(request, most_bytes) as parts, receiving(backend) as incoming:
        async for part in parts:
            if part.name == "file":
                filename = await _take(part, incoming, most_bytes)
            else:
                texts[part.name] = await part.text()
        fields = _fields(texts)
        if not incoming.has_come:
            raise InvalidRequestError("Missing required parameter: 'file'.", "file", "missing_required_parameter")
        expires_after_s = fields.expires_after.seconds if fields.expires_after else None
        file = await incoming.keep(tenant, filename=filename, purpose=fields.purpose, expires_after_s=expires_after_s)
    return FileModel.of(file)


async def _take(part: Part, incoming: IncomingFile, most_bytes: int) -> str:
    if incoming.has_come:
        raise InvalidRequestError("Duplicate parameter: 'file'. Only one file can be uploaded at once.", "file")
    await incoming.take(part.content, most_bytes)
    return part.filename or "upload"


def _fields(texts: dict[str, str]) -> _Fields:
    given: dict[str, object] = {"purpose": texts["purpose"]} if "purpose" in texts else {}
    expiry = {name: texts[key] for name in ("anchor", "seconds") if (key := f"expires_after[{name}]") in texts}
    if expiry:
        given["expires_after"] = expiry
    try:
        return _Fields.model_validate_strings(given)
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems) from None


@router.get("")
async def list_files(backend: BackendDep, tenant: TenantDep, wanted: Annotated[Wanted, Query()]) -> ListPage[FileModel]:
    """Give a page of the files, newest first unless told otherwise."""
    page = await files.listing(
        backend,
        tenant,
        purpose=wanted.purpose,
        after=wanted.after,
        most=wanted.limit,
        newest_first=wanted.order == "desc",
    )
    return ListPage[FileModel].of([FileModel.of(file) for file in page.items], has_more=page.has_more)


@router.get("/{file_id}")
async def retrieve_file(file_id: str, backend: BackendDep, tenant: TenantDep) -> FileModel:
    """Give a file's object."""
    return FileModel.of(await files.find(backend, tenant, file_id))


@router.delete("/{file_id}")
async def delete_file(file_id: str, backend: BackendDep, tenant: TenantDep) -> DeletedFile:
    """Delete a file; one that a running batch reads keeps its bytes until that batch has ended."""
    await files.remove(backend, tenant, file_id)
    return DeletedFile(id=file_id)
