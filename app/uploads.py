"""Uploads of a file in parts: `/v1/uploads`. The rules are in `batchord.service.uploads`."""

from __future__ import annotations

from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app.bodies import Body, ExpiresAfter
from app.deps import BackendDep, TenantDep
from app.files import FileModel
from app.multipart import form_body, open_form
from batchord.errors import InvalidRequestError
from batchord.service import uploads
from batchord.service.purposes import PURPOSES
from batchord.state.uploads import Upload

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

_FORM: Final = form_body(["data"], {"data": {"type": "string", "format": "binary"}})


class CreateUpload(Body):
    """What file will come; of which media type makes no difference."""

    bytes: int = Field(ge=0)
    filename: str = Field(min_length=1)
    mime_type: str
    purpose: str = Field(json_schema_extra={"enum": list(PURPOSES)})
    expires_after: ExpiresAfter | None = None


class CompleteUpload(Body):
    """Of which parts the file is made, in its order."""

    part_ids: list[str]
    md5: str | None = None


class UploadModel(BaseModel):
    """OpenAI's upload object; `file` is there once it is completed."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    expires_at: int
    file: FileModel | None = None

    @classmethod
    def of(cls, upload: Upload) -> UploadModel:
        """Show an upload; `file` is left unset where there is none, and so is not sent."""
        shown: dict[str, Any] = {
            **upload.model_dump(include={"id", "bytes", "filename", "purpose", "expires_at"}),
            "object": "upload",
            "status": upload.status.value,
            "created_at": int(upload.created_at),
        }
        if upload.file is not None:
            shown["file"] = FileModel.of(upload.file)
        return cls(**shown)


class PartModel(BaseModel):
    """OpenAI's object of an upload's part."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


@router.post("", response_model_exclude_unset=True)
async def create_upload(body: CreateUpload, backend: BackendDep, tenant: TenantDep) -> UploadModel:
    """Announce a file that comes in parts."""
    upload = await uploads.create(
        backend,
        tenant,
        size_bytes=body.bytes,
        filename=body.filename,
        purpose=body.purpose,
        expires_after_s=body.expires_after.seconds if body.expires_after else None,
    )
    return UploadModel.of(upload)


@router.post("/{upload_id}/parts", openapi_extra=_FORM)
async def add_upload_part(upload_id: str, request: Request, backend: BackendDep, tenant: TenantDep) -> PartModel:
    """Store a part; parts may come at once and in any order."""
    added = None
    async with open_form(request, backend.settings.max_part_bytes) as parts:
        await uploads.find_pending(backend, tenant, upload_id)
        async for part in parts:
            if part.name == "data":
                if added is not None:
                    raise InvalidRequestError("Duplicate parameter: 'data'. Parts are sent one by one.", "data")
                added = await uploads.add_part(backend, tenant, upload_id, part.content)
        if added is None:
            raise InvalidRequestError("Missing required parameter: 'data'.", "data", "missing_required_parameter")
    return PartModel(id=added.id, created_at=added.created_at, upload_id=added.upload_id)


@router.post("/{upload_id}/complete", response_model_exclude_unset=True)
async def complete_upload(upload_id: str, body: CompleteUpload, backend: BackendDep, tenant: TenantDep) -> UploadModel:
    """Make the file of the parts; asking again with the same parts gives the same."""
    return UploadModel.of(await uploads.complete(backend, tenant, upload_id, body.part_ids, body.md5 or ""))


@router.post("/{upload_id}/cancel", response_model_exclude_unset=True)
async def cancel_upload(upload_id: str, backend: BackendDep, tenant: TenantDep) -> UploadModel:
    """End an upload without a file."""
    return UploadModel.of(await uploads.cancel(backend, tenant, upload_id))
