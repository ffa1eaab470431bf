package shop.catalogue;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.Comparator;
import java.util.List;
import java.util.UUID;
import org.springframework.jdbc.core.simple.JdbcClient;
import org.springframework.stereotype.Component;
import org.springframework.transaction.annotation.Transactional;

/** The goods in PostgreSQL. */
@Component
class PostgresShelf implements Shelf {
    private final JdbcClient database;
    private final ObjectMapper json;

    PostgresShelf(JdbcClient database, ObjectMapper json) {
        this.database = database;
        this.json = json;
    }

    @Override
    public List<Product> products() {
        return database.sql("select id, name, description, art, price_cents, stock, capacity from catalogue.products order by position")
                .query(Product.class)
                .list();
    }

    @Override
    @Transactional
    public void reserve(UUID order, List<Item> items) {
        // A second request for the same order waits here for the first one, and then finds its row.
        int fresh = database.sql("insert into catalogue.reservations (order_id, items) values (?, ?::jsonb) on conflict do nothing")
                .param(order)
                .param(write(items))
                .update();
        if (fresh == 0) {
            return;
        }
        // In one order for everyone, so that two orders never wait for each other.
        for (Item item : items.stream().sorted(Comparator.comparing(Item::product)).toList()) {
            int taken = database.sql("update catalogue.products set stock = stock - :q where id = :id and stock >= :q")
                    .param("q", item.quantity())
                    .param("id", item.product())
                    .update();
            if (taken == 0) {
                throw new OutOfStock("too few left of " + item.product());
            }
        }
    }

    @Override
    @Transactional
    public void release(UUID order) {
        database.sql("delete from catalogue.reservations where order_id = ? returning items")
                .param(order)
                .query(String.class)
                .optional()
                .ifPresent(items -> read(items).stream()
                        .sorted(Comparator.comparing(Item::product))
                        .forEach(item -> database.sql("update catalogue.products set stock = stock + ? where id = ?")
                                .param(item.quantity())
                                .param(item.product())
                                .update()));
    }

    private String write(List<Item> items) {
        try {
            return json.writeValueAsString(items);
        } catch (JsonProcessingException e) {
            throw new IllegalStateException("a reservation cannot be written as JSON", e);
        }
    }

    private List<Item> read(String items) {
        try {
            return json.readValue(items, new TypeReference<>() {});
        } catch (JsonProcessingException e) {
            throw new IllegalStateException("a stored reservation is not JSON", e);
        }
    }
}
