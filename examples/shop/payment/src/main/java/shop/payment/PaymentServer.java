package shop.payment;

import com.google.gson.Gson;
import com.google.gson.JsonParseException;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpHandler;
import com.sun.net.httpserver.HttpServer;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.UnknownHostException;
import java.nio.charset.StandardCharsets;
import java.util.Collections;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/** The HTTP side: POST /charges, GET /healthz. */
final class PaymentServer {
    private static final int MAX_BODY = 16 * 1024;

    /** What a charge says. */
    private static final class Charge {
        String order;
        Integer amountCents;
        String currency;
        String method;

        String fault() {
            if (order == null || order.isEmpty() || order.length() > 100) return "order: from 1 to 100 characters are needed";
            if (amountCents == null || amountCents < 1) return "amountCents: must be at least 1";
            if (!"EUR".equals(currency)) return "currency: only EUR is taken";
            if (method == null) return "method: is needed";
            return null;
        }
    }

    private final HttpServer server;
    private final ExecutorService threads = Executors.newFixedThreadPool(8);
    private final Till till;
    private final Gson gson = new Gson();
    private final String servedBy = "payment/" + host() + "; Java " + System.getProperty("java.version");

    PaymentServer(InetSocketAddress address, Till till) throws IOException {
        this.till = till;
        server = HttpServer.create(address, 64);
        server.setExecutor(threads);
        server.createContext("/charges", answering("POST", this::charge));
        server.createContext("/healthz", answering("GET", exchange -> answer(exchange, 200, Collections.singletonMap("status", "ok"))));
        server.createContext("/", exchange -> fail(exchange, 404, "no such address"));
    }

    void start() {
        server.start();
    }

    int port() {
        return server.getAddress().getPort();
    }

    void stop(int seconds) {
        server.stop(seconds);
        threads.shutdown();
        try {
            threads.awaitTermination(seconds, TimeUnit.SECONDS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private void charge(HttpExchange exchange) throws IOException {
        String body = read(exchange.getRequestBody());
        if (body == null) {
            fail(exchange, 413, "the request is too large");
            return;
        }
        Charge charge;
        try {
            charge = gson.fromJson(body, Charge.class);
        } catch (JsonParseException e) {
            fail(exchange, 400, "the request is not a charge in JSON");
            return;
        }
        String fault = charge == null ? "the request is empty" : charge.fault();
        if (fault != null) {
            fail(exchange, 400, fault);
            return;
        }
        String key = exchange.getRequestHeaders().getFirst("Idempotency-Key");
        Till.Receipt receipt = till.charge(key == null ? charge.order : key, charge.amountCents, charge.method);
        System.out.println("payment: order " + charge.order.replaceAll("[^\\w-]", "?") + ": " + receipt.status);
        answer(exchange, receipt.approved() ? 200 : 402, receipt);
    }

    /** A handler for one method that always answers, and always closes. */
    private HttpHandler answering(String method, HttpHandler handler) {
        return exchange -> {
            try {
                if (exchange.getRequestMethod().equals(method)) {
                    handler.handle(exchange);
                } else {
                    exchange.getResponseHeaders().set("Allow", method);
                    fail(exchange, 405, "only " + method + " is answered here");
                }
            } catch (RuntimeException e) {
                e.printStackTrace();
                fail(exchange, 500, "the payment service has a fault");
            } finally {
                exchange.close();
            }
        };
    }

    private void fail(HttpExchange exchange, int status, String error) throws IOException {
        answer(exchange, status, Collections.singletonMap("error", error));
    }

    private void answer(HttpExchange exchange, int status, Object body) throws IOException {
        byte[] bytes = gson.toJson(body).getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        exchange.getResponseHeaders().set("X-Served-By", servedBy);
        exchange.sendResponseHeaders(status, bytes.length);
        exchange.getResponseBody().write(bytes);
        exchange.close();
    }

    /** The body, or null when it is too large. */
    private static String read(InputStream in) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        byte[] buffer = new byte[4096];
        for (int n = in.read(buffer); n >= 0; n = in.read(buffer)) {
            out.write(buffer, 0, n);
            if (out.size() > MAX_BODY) return null;
        }
        return new String(out.toByteArray(), StandardCharsets.UTF_8);
    }

    private static String host() {
        String name = System.getenv("HOSTNAME");
        if (name != null && !name.isEmpty()) return name;
        try {
            return InetAddress.getLocalHost().getHostName();
        } catch (UnknownHostException e) {
            return "unknown";
        }
    }
}
