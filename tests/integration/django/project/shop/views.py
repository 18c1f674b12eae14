from django.http import HttpRequest, HttpResponse

from sagas import start, start_async
from shop.models import Order
from shop.sagas import PlaceOrder, Purchase


def order(request: HttpRequest) -> HttpResponse:
    number = request.GET["number"]
    Order.objects.create(number=number)
    saga_id = start(PlaceOrder, Purchase(number))
    if "fail" in request.GET:
        raise RuntimeError("the view fails after the start")
    return HttpResponse(str(saga_id))


async def order_async(request: HttpRequest) -> HttpResponse:
    await Order.objects.acreate(number=request.GET["number"])
    return HttpResponse(str(await start_async(PlaceOrder, Purchase(request.GET["number"]))))


order_async.__dict__["_non_atomic_requests"] = {"default", "other", "file"}
