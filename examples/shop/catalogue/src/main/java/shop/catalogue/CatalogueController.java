package shop.catalogue;

import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.dao.DataAccessException;
import org.springframework.http.HttpStatus;
import org.springframework.http.ResponseEntity;
import org.springframework.transaction.CannotCreateTransactionException;
import org.springframework.web.bind.annotation.DeleteMapping;
import org.springframework.web.bind.annotation.ExceptionHandler;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PutMapping;
import org.springframework.web.bind.annotation.RequestBody;
import org.springframework.web.bind.annotation.ResponseStatus;
import org.springframework.web.bind.annotation.RestController;

/** What the page reads (/api) and what the workers do (/internal, which the front end does not pass on). */
@RestController
class CatalogueController {
    private static final Logger log = LoggerFactory.getLogger(CatalogueController.class);
    private static final int MAX_ITEMS = 100;

    record Products(List<Product> products) {}

    record Reservation(List<Shelf.Item> items) {}

    private final Shelf shelf;

    CatalogueController(Shelf shelf) {
        this.shelf = shelf;
    }

    @GetMapping("/api/catalogue/products")
    Products products() {
        return new Products(shelf.products());
    }

    @PutMapping("/internal/reservations/{order}")
    Map<String, String> reserve(@PathVariable UUID order, @RequestBody Reservation wanted) {
        List<Shelf.Item> items = wanted.items();
        if (items == null || items.isEmpty() || items.size() > MAX_ITEMS) {
            throw new IllegalArgumentException("from 1 to " + MAX_ITEMS + " items are needed");
        }
        for (Shelf.Item item : items) {
            if (item == null || item.product() == null || item.quantity() < 1) {
                throw new IllegalArgumentException("every item needs a product and a quantity of at least 1");
            }
        }
        shelf.reserve(order, items);
        return Map.of("order", order.toString(), "status", "reserved");
    }

    @DeleteMapping("/internal/reservations/{order}")
    Map<String, String> release(@PathVariable UUID order) {
        shelf.release(order);
        return Map.of("order", order.toString(), "status", "released");
    }

    @ExceptionHandler
    @ResponseStatus(HttpStatus.CONFLICT)
    Map<String, String> outOfStock(Shelf.OutOfStock e) {
        return Map.of("error", e.getMessage());
    }

    @ExceptionHandler
    @ResponseStatus(HttpStatus.BAD_REQUEST)
    Map<String, String> invalid(IllegalArgumentException e) {
        return Map.of("error", e.getMessage());
    }

    @ExceptionHandler({DataAccessException.class, CannotCreateTransactionException.class})
    ResponseEntity<Map<String, String>> noDatabase(Exception e) {
        log.warn("database: {}", e.getMessage());
        return ResponseEntity.status(HttpStatus.SERVICE_UNAVAILABLE).body(Map.of("error", "the shelves cannot be reached; please try again"));
    }
}
